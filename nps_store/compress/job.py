"""Compressing fine-tunes into a new store or an existing one.

Everything that can be wrong with the input is found before the first byte is written, and all tasks
of one call appear together or not at all.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formats.canonical import MAX_NAME_NBYTES
from formats.container import Container
from formats.writer import ContainerWriter
from nps_store.calibration import Quality, Row, read_rows
from nps_store.checkpoint import Checkpoint
from nps_store.compress.calibrate import Calibration
from nps_store.compress.encode import absent, encode
from nps_store.compress.fine_tune import FineTune
from nps_store.compress.options import Options, Progress, Silent, TaskSource
from nps_store.compress.rate import choose
from nps_store.compress.writing import TaskSink
from nps_store.errors import BadOptionError, CalibrationError, StoreExistsError, TaskExistsError
from nps_store.store import Store
from nps_store.task import task_nbytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nps_store.compress.encode import Encoded
    from nps_store.compress.rate import Choice
    from nps_store.search import Found, Selection
    from nps_store.sources import BaseSource

RECORD_NBYTES = 1024
"""Room left in a byte budget for what is noted of a task, which is known only at the end."""


@dataclass(frozen=True)
class Stored:
    """One task as it went into the store.

    Attributes:
        name: Of the task.
        nbytes: Bytes in the store, everything included.
        dense_nbytes: Bytes of the fine-tune's weights.
        keep: Kept fraction; 1 where everything is.
        quality: Measured from the written file; None without calibration data.
        target: The target asked, or None.
        seconds: Wall time.
    """

    name: str
    nbytes: int
    dense_nbytes: int
    keep: float
    quality: Quality | None
    target: float | None
    seconds: float


@dataclass(frozen=True)
class _Job:
    """A checked task source."""

    fine_tune: FineTune
    rows: list[Row] | None
    source_hash: str


@dataclass(frozen=True)
class _Decided:
    """A task with what is kept of it; `found` is None where everything is."""

    fine_tune: FineTune
    found: Found | None
    meta: dict[str, Any]
    stored: Stored

    def encoded(self) -> Iterator[Encoded]:
        return encode(self.fine_tune, None if self.found is None else self.found.selection)

    @property
    def absent(self) -> tuple[int, ...]:
        return absent(self.fine_tune, exact=self.found is None)


def compress(
    base: str | os.PathLike[str],
    tasks: Sequence[TaskSource],
    out: str | os.PathLike[str],
    *,
    options: Options | None = None,
    embed_base: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Stored]:
    """Compress fine-tunes of one base into a new store.

    Args:
        base: Hugging Face directory of the base.
        tasks: The fine-tunes.
        out: Path of the store.
        options: How.
        embed_base: Store the base's weights too, losslessly.
        overwrite: Replace a file at `out`, once the new store is complete.
        progress: Told what goes on.

    Raises:
        NpsError: Its subclasses say what is wrong with the input; nothing is written then.
        StoreExistsError: There is a file at `out`.
    """
    out = Path(out)
    if out.is_dir():
        raise BadOptionError(f"{out}: is a directory; expected the path of a store to write")
    if out.exists() and not overwrite:
        raise StoreExistsError(f"{out}: already exists; use `nps add` or --overwrite")
    if not out.parent.is_dir():
        raise BadOptionError(f"{out.parent}: no such directory to put {out.name} in")
    if not os.access(out.parent, os.W_OK):
        raise BadOptionError(f"{out.parent}: may not be written to; choose another place")
    source = Checkpoint(base)
    options, listener = options or Options(), progress or Silent()
    jobs = _check(source, tasks, options, taken=(), progress=listener)
    sink = TaskSink.of(source)
    decided = [_decide(job, sink, options, listener) for job in jobs]
    with ContainerWriter.create(out, overwrite=overwrite) as writer:
        sink.set_base(
            writer,
            embed=embed_base,
            name=source.path.absolute().name,
            path_hint=_hint(source.path, out.parent),
        )
        _write(writer, sink, decided)
    return _as_written(out, decided)


def add(
    path: str | os.PathLike[str],
    tasks: Sequence[TaskSource],
    *,
    base: str | os.PathLike[str] | None = None,
    options: Options | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> list[Stored]:
    """Compress fine-tunes into an existing store; its readers see them after the commit.

    The store is locked only while the finished tasks are written.

    Args:
        path: The store.
        tasks: The fine-tunes.
        base: Directory of an external base, where it is not where it was.
        options: How.
        replace: Replace tasks of the same name.
        progress: Told what goes on.

    Raises:
        TaskExistsError: A task of that name is in the store and `replace` is not set.
        NpsError: Its other subclasses say what is wrong with the input.
    """
    options, listener = options or Options(), progress or Silent()
    with Store.open(path, base=base) as store:
        taken = () if replace else store.tasks
        jobs = _check(store.base, tasks, options, taken=taken, progress=listener)
        sink = TaskSink(store.base, store.base_tensors)
        decided = [_decide(job, sink, options, listener) for job in jobs]
        with ContainerWriter.open(path) as writer:
            for task in decided:
                if task.stored.name in writer.tasks:
                    if not replace:
                        raise _taken(task.stored.name)
                    writer.remove_task(task.stored.name)
            _write(writer, sink, decided)
    return _as_written(path, decided)


def _hint(base: Path, store_directory: Path) -> str:
    """Where to look for the base later: as given if absolute, else seen from the store, so that
    both can be moved together."""
    return str(base) if base.is_absolute() else os.path.relpath(base, store_directory)


def _write(writer: ContainerWriter, sink: TaskSink, decided: Sequence[_Decided]) -> None:
    for task in decided:
        sink.write(writer, task.fine_tune, task.encoded(), absent=task.absent, meta=task.meta)
    writer.commit()


def _as_written(path: str | os.PathLike[str], decided: Sequence[_Decided]) -> list[Stored]:
    with Container.open(path) as container:
        return [
            replace(task.stored, nbytes=task_nbytes(container, task.stored.name))
            for task in decided
        ]


def _decide(job: _Job, sink: TaskSink, options: Options, progress: Progress) -> _Decided:
    """Search, write into a scratch store and measure there what will be in the store."""
    start = time.perf_counter()
    fine_tune = job.fine_tune
    found, calibration, choice = None, None, None
    if job.rows is not None and options.method != "exact":
        progress.stage(fine_tune.name, "load")
        calibration = Calibration(fine_tune, job.rows, options)
        if calibration.n_truncated:
            progress.note(
                fine_tune.name, f"{calibration.n_truncated} calibration texts were cut to length"
            )
    if options.method != "exact":
        progress.stage(fine_tune.name, "search")
        choice = choose(
            fine_tune, calibration, options,
            nbytes_of=lambda selection: _nbytes(fine_tune, sink, selection) + RECORD_NBYTES,
            progress=progress,
        )  # fmt: skip
        found = choice.found
        if choice.target is not None and found.check < choice.target:
            progress.note(
                fine_tune.name,
                f"target {choice.target:g} is out of reach (got {found.check:.3f}); "
                "stored losslessly",
            )
            found = None
    progress.stage(fine_tune.name, "measure")
    selection = None if found is None else found.selection
    gone = absent(fine_tune, exact=found is None)
    with sink.scratch(fine_tune, encode(fine_tune, selection), absent=gone) as (store, nbytes):
        quality = None if calibration is None else calibration.measure_stored(store)
    stored = Stored(
        name=fine_tune.name,
        nbytes=nbytes,
        dense_nbytes=fine_tune.dense_nbytes(),
        keep=1.0 if found is None else found.selection.n_kept / max(found.selection.pool.numel, 1),
        quality=quality,
        target=None if choice is None else choice.target,
        seconds=time.perf_counter() - start,
    )
    meta = {
        "tool": f"nps-store {version('nps-store')}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "method": options.method if found is not None else "exact",
        "keep": stored.keep,
        "seed": options.seed,
        "quality": None if quality is None else quality.to_json(),
        "source": {
            "name": fine_tune.checkpoint.path.resolve().name,
            "hash": job.source_hash,
            "nbytes": stored.dense_nbytes,
        },
        **_search_record(found, calibration, options, choice),
    }
    return _Decided(fine_tune, found, meta, stored)


def _search_record(
    found: Found | None,
    calibration: Calibration | None,
    options: Options,
    choice: Choice | None,
) -> dict[str, Any]:
    """What is noted of how a task was compressed."""
    record: dict[str, Any] = {"target": None if choice is None else choice.target}
    if found is not None:
        record["n_kept"] = found.selection.n_kept
        record["log_weights"] = [round(w, 4) for w in found.candidate.log_weights]
        record["log_scale"] = round(found.candidate.log_scale, 4)
        record["calibrated"] = calibration is not None
    if found is not None and choice is not None and calibration is not None:
        record["objective"] = options.objective
        record["n_evaluations"] = choice.n_evaluations
        record["check"] = calibration.quality_of(found.selection).to_json()
    return record


def _nbytes(fine_tune: FineTune, sink: TaskSink, selection: Selection) -> int:
    gone = absent(fine_tune, exact=False)
    with sink.scratch(fine_tune, encode(fine_tune, selection), absent=gone) as (_, nbytes):
        return nbytes


def _taken(name: str) -> TaskExistsError:
    return TaskExistsError(f"task {name!r} is in the store; use --replace to replace it")


def _check(
    base: BaseSource,
    tasks: Sequence[TaskSource],
    options: Options,
    *,
    taken: Sequence[str],
    progress: Progress,
) -> list[_Job]:
    """Everything that can be refused before work begins."""
    names = [task.name for task in tasks]
    for name in names:
        if not 0 < len(name.encode(errors="replace")) <= MAX_NAME_NBYTES or not name.isprintable():
            raise BadOptionError(
                f"task name {name!r}: expected 1 to {MAX_NAME_NBYTES} bytes of printable text"
            )
        if names.count(name) > 1:
            raise TaskExistsError(f"task {name!r} is named twice; task names must differ")
        if name in taken:
            raise _taken(name)
    jobs = []
    for task in tasks:
        progress.stage(task.name, "check")
        fine_tune = FineTune(task.name, Checkpoint(task.directory), base, dtype=options.dtype)
        rows = None if task.calibration is None else read_rows(task.calibration)
        if rows is None and options.target is not None:
            raise BadOptionError(
                f"--target needs data to measure on: give --calib {task.name}=FILE.jsonl, "
                "or ask for --keep or --max-bytes"
            )
        if rows is not None and options.objective != "distill":
            unlabelled = [number for number, row in enumerate(rows, 1) if row.label is None]
            if unlabelled:
                raise CalibrationError(
                    f"{task.calibration}: example {unlabelled[0]} has no label, which objective "
                    f"{options.objective!r} needs; use --objective distill"
                )
        jobs.append(_Job(fine_tune, rows, fine_tune.hash()))
    return jobs
