"""How a verb fails: one clear sentence on stderr, and the error's own exit code."""

from __future__ import annotations

import errno
import functools
import json
import os
import sys
from collections.abc import Callable

from nps_store.errors import DiskFullError, InputOutputError, NoSuchFileError, NpsError

INTERRUPTED = 130


def guarded(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with its errors turned into exit codes."""

    @functools.wraps(verb)
    def run(*args: object, **kwargs: object) -> None:
        try:
            verb(*args, **kwargs)
        except KeyboardInterrupt:
            sys.stderr.write("nps: interrupted; nothing was changed\n")
            raise SystemExit(INTERRUPTED) from None
        except NpsError as error:
            raise SystemExit(report(error, as_json=bool(kwargs.get("as_json")))) from None
        except BrokenPipeError:
            _drop_output()  # whoever read it has left
            raise SystemExit(0) from None
        except OSError as error:
            if error.filename is None:  # it may be the output that cannot be written
                _drop_output()
            told = from_os(error)
            raise SystemExit(report(told, as_json=bool(kwargs.get("as_json")))) from None

    return run


def _drop_output() -> None:
    """Keep the interpreter from writing at its end what is still buffered."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return  # standard output is no file here, and nothing is lost


def from_os(error: OSError) -> NpsError:
    """What the system said, as an error of ours."""
    where = error.filename or "input or output"
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return DiskFullError(f"{where}: no space left on the disk; nothing was changed")
    if isinstance(error, FileNotFoundError):
        return NoSuchFileError(f"{where}: no such file")
    return InputOutputError(f"{where}: {error.strerror or error}")


def report(error: NpsError, *, as_json: bool) -> int:
    """Say it, as a sentence or as a JSON line; the exit code."""
    if as_json:
        fields = {"id": error.id, "exit_code": error.exit_code, "message": str(error)}
        sys.stderr.write(json.dumps({"schema": "nps.error/1", "error": fields}) + "\n")
    else:
        sys.stderr.write(f"nps: {error}\n")
    return error.exit_code
