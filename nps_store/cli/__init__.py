"""The command `nps`: one verb a file.

Results go to stdout (`--json`: exactly one document), everything for people's eyes to stderr. The
exit code is the error class's own.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from importlib.metadata import entry_points

import click
import typer

from nps_store.cli.add import add
from nps_store.cli.compact import compact
from nps_store.cli.compress import compress
from nps_store.cli.doctor import doctor
from nps_store.cli.evaluate import evaluate
from nps_store.cli.export import export
from nps_store.cli.inspect import inspect
from nps_store.cli.ls import ls
from nps_store.cli.rm import rm
from nps_store.cli.verify import verify
from nps_store.errors import DiskFullError, NpsError

INTERRUPTED = 130


def build() -> typer.Typer:
    """The command with all verbs, those of other installed packages (`serve`) included."""
    app = typer.Typer(
        name="nps",
        help="Compressed storage and serving for many full fine-tunes of one base model.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    verbs = (compress, add, rm, ls, inspect, verify, compact, export, doctor)
    for verb in verbs:
        app.command()(verb)
    app.command(name="eval")(evaluate)
    for point in sorted(entry_points(group="nps_store.verbs"), key=lambda point: point.name):
        app.command(name=point.name)(point.load())
    return app


def main() -> None:
    """Run the command line and exit with the code of what happened."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line; the exit code."""
    try:
        code = build()(args=arguments, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("nps: interrupted; nothing was changed\n")
        return INTERRUPTED
    except NpsError as error:
        return _fail(error, arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            return _fail(NpsError(str(error)), arguments)
        where = error.filename or "the disk"
        return _fail(DiskFullError(f"{where}: no space left; nothing was changed"), arguments)
    return code if isinstance(code, int) else 0


def _fail(error: NpsError, arguments: list[str]) -> int:
    """One clear sentence on stderr; with --json as a JSON line, for programs."""
    if "--json" in arguments:
        fields = {"id": error.id, "exit_code": error.exit_code, "message": str(error)}
        sys.stderr.write(json.dumps({"schema": "nps.error/1", "error": fields}) + "\n")
    else:
        sys.stderr.write(f"nps: {error}\n")
    return error.exit_code
