"""What can be refused of a compression before work begins: names, models, data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from formats.canonical import MAX_NAME_NBYTES
from nps_store.adapters import open_fine_tune
from nps_store.calibration import Row, class_indices, read_rows
from nps_store.compress.fine_tune import FineTune
from nps_store.compress.journal import JournalFile
from nps_store.compress.kinship import Kinship
from nps_store.errors import (
    BadOptionError,
    CalibrationError,
    TaskExistsError,
    UnrelatedModelError,
)
from nps_store.modeling.body import is_causal_lm
from nps_store.modeling.configuration import parse_config
from nps_store.modeling.shell import labels_of

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from nps_store.compress.options import Options, Progress, TaskSource
    from nps_store.compress.writing import TaskSink
    from nps_store.sources import BaseSource

LEAST_ROWS = 2
"""One to search on and one to check with."""


@dataclass(frozen=True)
class Job:
    """A checked task source.

    Attributes:
        fine_tune: What to compress.
        rows: Calibration data, or None.
        source_hash: Which fine-tune it is.
        is_equal: Whether its body is the base's, so that there is no task vector.
        journal: Where its trials are recorded, or None.
    """

    fine_tune: FineTune
    rows: list[Row] | None
    source_hash: str
    is_equal: bool
    journal: JournalFile | None = None


def admit(
    base: BaseSource,
    tasks: Sequence[TaskSource],
    options: Options,
    *,
    taken: Sequence[str],
    progress: Progress,
) -> list[Job]:
    """Check all tasks of a call against the base, the options and each other.

    Args:
        base: What they are fine-tunes of.
        tasks: As they were given.
        options: What was asked.
        taken: Names that the store has.
        progress: Told of each task's check.

    Raises:
        NpsError: Its subclasses say what is wrong; no task has been worked on then.
    """
    _check_names([task.name for task in tasks], taken)
    return [_admit(base, task, options, progress) for task in tasks]


def with_journals(
    jobs: Sequence[Job],
    sink: TaskSink,
    options: Options,
    directory: str | os.PathLike[str] | None,
) -> list[Job]:
    """The jobs with their journals, where trials are to be recorded.

    Raises:
        BadOptionError: There is no place for that directory.
        JournalMismatchError: A journal there is of another search (says what differs).
        JournalDamagedError: A journal there cannot be read.
    """
    if directory is None:
        return list(jobs)
    place = Path(directory)
    if (place.exists() and not place.is_dir()) or not place.parent.is_dir():
        raise BadOptionError(
            f"--journal is {str(place)!r}; expected a directory, or a place for it"
        )
    asked = asdict(options)
    del asked["search_seconds"]  # how long it may take is no part of what is searched
    base = {"base": sink.identity, "options": asked}
    made = []
    for job in jobs:
        rows = None if job.rows is None else [(row.text, row.label, row.group) for row in job.rows]
        files = job.fine_tune.checkpoint.files()
        contents = {name: path.read_bytes().hex() for name, path in files.items()}
        identity = {
            **base,
            "fine_tune": job.source_hash,
            "files": _hash(contents),
            "calibration": _hash(rows),
        }
        file = JournalFile.below(place, job.fine_tune.name, identity)
        file.check()
        made.append(replace(job, journal=file))
    return made


def taken_name(name: str) -> TaskExistsError:
    """The error for a name that the store has."""
    return TaskExistsError(f"task {name!r} is in the store; use --replace to replace it")


def _hash(content: object) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(content).encode())


def _check_names(names: Sequence[str], taken: Sequence[str]) -> None:
    for name in names:
        if not 0 < len(name.encode(errors="replace")) <= MAX_NAME_NBYTES or not name.isprintable():
            raise BadOptionError(
                f"task name {name!r}: expected 1 to {MAX_NAME_NBYTES} bytes of printable text"
            )
        if names.count(name) > 1:
            raise TaskExistsError(f"task {name!r} is named twice; task names must differ")
        if name in taken:
            raise taken_name(name)


def _admit(base: BaseSource, task: TaskSource, options: Options, progress: Progress) -> Job:
    progress.stage(task.name, "check")
    fine_tune = FineTune(task.name, open_fine_tune(task.directory, base), base, dtype=options.dtype)
    if fine_tune.adapter is not None and options.dtype is not None:
        raise BadOptionError(
            f"--dtype is {options.dtype}, but {task.directory} is an adapter, which is stored for "
            "the base's own dtype; leave it out"
        )
    rows = None
    if task.calibration is not None:
        rows = read_rows(task.calibration)
        _check_rows(rows, task.calibration, fine_tune, options)
    elif options.target is not None:
        raise BadOptionError(
            f"--target needs data to measure on: give --calib {task.name}=FILE.jsonl, "
            "or ask for --keep or --max-bytes"
        )
    source_hash = fine_tune.hash()
    kinship = Kinship.of(fine_tune, device=options.device)
    is_exact = options.method == "exact" or fine_tune.adapter is not None
    if not kinship.is_related and not is_exact:
        raise UnrelatedModelError(
            f"{fine_tune.checkpoint.path}: not a fine-tune of this base: its weights differ from "
            f"the base's by {kinship.change:.0%} of their size, with a correlation of "
            f"{kinship.correlation:.2f}; stored densely it takes {fine_tune.dense_nbytes():,} "
            "bytes (--method exact stores it losslessly, in about that)"
        )
    return Job(fine_tune, rows, source_hash, kinship.is_equal)


def _check_rows(rows: list[Row], path: Path, fine_tune: FineTune, options: Options) -> None:
    """Whether the data can serve to calibrate this fine-tune, as far as it can be told without
    running it.

    Raises:
        CalibrationError: They cannot; names the line where one is at fault.
    """
    if len(rows) < LEAST_ROWS:
        raise CalibrationError(
            f"{path}: {len(rows)} calibration examples; expected at least {LEAST_ROWS}, "
            "one to search on and one to check with"
        )
    config = fine_tune.checkpoint.config
    own_label = options.objective == "loss" and is_causal_lm(config)
    if options.objective not in {None, "distill"} and not own_label:
        for row in rows:
            if row.label is None:
                raise CalibrationError(
                    f"{path}: line {row.line} has no label, which objective "
                    f"{options.objective!r} needs; use --objective distill"
                )
    if str((config.get("architectures") or [""])[0]).endswith("ForSequenceClassification"):
        class_indices(rows, labels_of(parse_config(config)), where=str(path))
