"""A search that may be stopped at any moment: each trial goes to disk, and none is evaluated twice.

The search is deterministic, so a run with the same identity asks for the same trials in the same
order. Those that are recorded are answered from the file, and the run goes on where the last one
ended. The search itself knows nothing of it.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import xxhash

from formats.errors import named
from nps_store.compress.calibrate import Calibration
from nps_store.errors import JournalDamagedError, JournalMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from nps_store.calibration import Row
    from nps_store.compress.fine_tune import FineTune
    from nps_store.compress.options import Options
    from nps_store.search import Selection

SCHEMA = "nps.journal/1"
PACKAGES = ("nps-store", "torch", "transformers", "tokenizers", "numpy", "scipy", "cma")
"""What the value of a trial depends on beside the data."""
MAX_STEM = 200
"""Of a file name, which may take 255 bytes."""


@dataclass(frozen=True)
class JournalFile:
    """Where the journal of a task is, and which search it must be of.

    Attributes:
        path: The file, which need not exist.
        identity: Everything that the search depends on, as JSON.
    """

    path: Path
    identity: Mapping[str, Any]

    @classmethod
    def below(cls, directory: Path, task: str, identity: Mapping[str, Any]) -> JournalFile:
        """The file of a task in a directory, whatever the task's name."""
        stem = quote(task, safe=" ")
        if len(stem) > MAX_STEM:
            stem = f"{stem[:MAX_STEM]}-{xxhash.xxh3_64_hexdigest(task.encode())}"
        versions = {name: version(name) for name in PACKAGES}
        identity = {"schema": SCHEMA, "task": task, **identity, "versions": versions}
        return cls(directory / f"{stem}.jsonl", identity)

    def check(self) -> None:
        """Look at a journal that is there, without changing it.

        Raises:
            JournalMismatchError: It is of another search (says what differs).
            JournalDamagedError: A line of it is no trial.
        """
        if self.path.exists():
            self.parse(self.path.read_bytes())

    def parse(self, content: bytes) -> tuple[dict[tuple[str, str], float], int]:
        """Trials by kind and selection, and the bytes of all whole lines: a torn last one is none.

        Raises:
            JournalMismatchError: It is of another search (says what differs).
            JournalDamagedError: A line of it is no trial.
        """
        lines = content.split(b"\n")[:-1]
        trials = {}
        for number, line in enumerate(lines, 1):
            try:
                fields = json.loads(line)
                if number > 1:
                    trials[fields["of"], fields["selection"]] = float(fields["value"])
            except (ValueError, TypeError, KeyError) as error:
                raise JournalDamagedError(
                    "not a line of a journal",
                    path=self.path,
                    where=f"line {number}",
                    hint="remove the file to search anew",
                ) from error
            if number == 1:
                self._compare(fields)
        return trials, sum(len(line) + 1 for line in lines)

    def _compare(self, found: Any) -> None:  # noqa: ANN401 (JSON is anything)
        ours, theirs = dict(_flat(self.identity)), dict(_flat(found))
        differing = sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k))
        if differing:
            raise JournalMismatchError(
                "the journal is of another search",
                path=self.path,
                where=", ".join(differing),
                expected=", ".join(str(ours.get(name)) for name in differing),
                actual=", ".join(str(theirs.get(name)) for name in differing),
                hint="remove the file or give another --journal directory",
            )


class Journal:
    """The journal of a task.

    Attributes:
        n_recorded: Trials that were in it when it was opened.
    """

    def __init__(self, file: JournalFile) -> None:
        """Read it, without its last line where that is torn, or begin it.

        Raises:
            JournalMismatchError: It is of another search (says what differs).
            JournalDamagedError: A line of it is no trial.
        """
        self._path = file.path
        file.path.parent.mkdir(exist_ok=True)
        file.path.touch()
        self._values, nbytes = file.parse(file.path.read_bytes())
        os.truncate(file.path, nbytes)
        if not nbytes:
            self._write(file.identity)
        self.n_recorded = len(self._values)

    def value(self, of: str, selection: Selection, evaluate: Callable[[], float]) -> float:
        """What a trial gave, evaluated only if it is not recorded."""
        key = of, _fingerprint(selection)
        if key not in self._values:
            value = evaluate()
            if not math.isfinite(value):
                return value  # an error of the caller's, not a trial
            self._values[key] = value
            self._write(
                {
                    "trial": len(self._values),
                    "of": of,
                    "keep": selection.n_kept / max(selection.pool.numel, 1),
                    "parameters": selection.candidate.vector(scaled=True).tolist(),
                    "value": value,
                    "selection": key[1],
                }
            )
        return self._values[key]

    def _write(self, fields: Mapping[str, Any]) -> None:
        """One line at once: a process that is killed leaves whole lines, or a torn last one."""
        with named(os.fspath(self._path)), self._path.open("ab", buffering=0) as file:
            file.write(json.dumps(fields, allow_nan=False).encode() + b"\n")


class JournaledCalibration(Calibration):
    """A calibration whose trials are recorded."""

    def __init__(
        self,
        fine_tune: FineTune,
        rows: Sequence[Row],
        options: Options,
        *,
        journal: Journal,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        """As a calibration; see there."""
        super().__init__(fine_tune, rows, options, on_step=on_step)
        self._journal = journal

    def loss(self, selection: Selection) -> float:
        """As the calibration's, evaluated only if it is not recorded."""
        return self._journal.value("loss", selection, partial(super().loss, selection))

    def check(self, selection: Selection) -> float:
        """As the calibration's, evaluated only if it is not recorded."""
        return self._journal.value("check", selection, partial(super().check, selection))


def _fingerprint(selection: Selection) -> str:
    """xxh3-128 of all that is added to the base. Parameters alone do not say it: a selection that
    was learned has those that it began with."""
    digest = xxhash.xxh3_128()
    for name, span, positions in selection.tensors():
        digest.update(f"{name}\0{len(positions)}\0".encode())
        digest.update(positions.cpu().numpy().data)
        digest.update(selection.values_in(span).cpu().numpy().data)
    return digest.hexdigest()


def _flat(fields: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 (JSON)
    """Leaves of nested objects by dotted names."""
    if not isinstance(fields, dict):
        yield prefix.removesuffix("."), fields
        return
    for name, value in fields.items():
        yield from _flat(value, f"{prefix}{name}.")
