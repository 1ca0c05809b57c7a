"""What is kept of one task, measured as it will be stored."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nps_store.compress.calibrate import Calibration
from nps_store.compress.encode import Encoding
from nps_store.compress.journal import Journal, JournaledCalibration
from nps_store.compress.rate import choose
from nps_store.compress.record import record, search_record

if TYPE_CHECKING:
    from nps_store.calibration import Quality, Row
    from nps_store.compress.admission import Job
    from nps_store.compress.fine_tune import FineTune
    from nps_store.compress.journal import JournalFile
    from nps_store.compress.options import Options, Progress
    from nps_store.compress.rate import Choice
    from nps_store.compress.writing import TaskSink
    from nps_store.search import Found, Selection

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
        n_truncated: Calibration texts that were longer than the model's limit.
        seconds: Wall time.
    """

    name: str
    nbytes: int
    dense_nbytes: int
    keep: float
    quality: Quality | None
    target: float | None
    n_truncated: int
    seconds: float


@dataclass(frozen=True)
class Decision:
    """What is kept of a task; can be sent from process to process.

    Attributes:
        encoding: Its weights as they go into the store.
        meta: What is noted of it.
        stored: What is told of it.
    """

    encoding: Encoding
    meta: dict[str, Any]
    stored: Stored


def decide(job: Job, sink: TaskSink, options: Options, progress: Progress) -> Decision:
    """Search, write into a scratch store and measure there what will be in the store."""
    start = time.perf_counter()
    fine_tune = job.fine_tune
    calibration, choice, found = None, None, None
    if options.method != "exact" and fine_tune.adapter is None:
        calibration, choice = _search(job, sink, options, progress)
        found = _within_reach(fine_tune, choice, progress)
    progress.stage(fine_tune.name, "measure")
    encoding = Encoding.of(fine_tune, None if found is None else found.selection)
    with sink.scratch(fine_tune, encoding) as (store, nbytes):
        quality = None if calibration is None else calibration.measure_stored(store)
    stored = Stored(
        name=fine_tune.name,
        nbytes=nbytes,
        dense_nbytes=fine_tune.dense_nbytes(),
        keep=1.0 if found is None else found.selection.n_kept / max(found.selection.pool.numel, 1),
        quality=quality,
        target=None if choice is None else choice.target,
        n_truncated=0 if calibration is None else calibration.n_truncated,
        seconds=time.perf_counter() - start,
    )
    meta = record(stored, job.source_hash, fine_tune, options)
    meta |= search_record(found, calibration, choice, options)
    progress.stage(fine_tune.name, "done")
    return Decision(encoding, meta, stored)


def _search(
    job: Job, sink: TaskSink, options: Options, progress: Progress
) -> tuple[Calibration | None, Choice]:
    """What to keep, and the live model that this was found with, where there are data."""
    fine_tune, calibration = job.fine_tune, None
    if job.is_equal:
        progress.note(fine_tune.name, _without_delta(fine_tune))
        options = _for_nothing(options)
    elif job.rows is not None:
        calibration = _calibrate(fine_tune, job.rows, options, progress, journal=job.journal)

    def nbytes_of(selection: Selection) -> int:
        with sink.scratch(fine_tune, Encoding.of(fine_tune, selection)) as (_, nbytes):
            return nbytes + RECORD_NBYTES

    progress.stage(fine_tune.name, "search")
    choice = choose(fine_tune, calibration, options, nbytes_of=nbytes_of, progress=progress)
    return calibration, choice


def _within_reach(fine_tune: FineTune, choice: Choice, progress: Progress) -> Found | None:
    """What was found; None where it misses the target, so that everything is to be kept."""
    found = choice.found
    if choice.target is None or found.check >= choice.target:
        return found
    progress.note(
        fine_tune.name,
        f"target {choice.target:g} is out of reach (got {found.check:.3f}); stored losslessly",
    )
    return None


def _calibrate(
    fine_tune: FineTune,
    rows: list[Row],
    options: Options,
    progress: Progress,
    *,
    journal: JournalFile | None,
) -> Calibration:
    """The live model on its data, and what is to be told of them."""
    name = fine_tune.name
    progress.stage(name, "load")

    def on_step(done: int) -> None:
        progress.step(name, done, options.steps)

    if journal is None:
        calibration = Calibration(fine_tune, rows, options, on_step=on_step)
    else:
        recorded = Journal(journal)
        if recorded.n_recorded:
            progress.note(name, f"{recorded.n_recorded} trials are taken from {journal.path}")
        calibration = JournaledCalibration(
            fine_tune, rows, options, journal=recorded, on_step=on_step
        )
    if calibration.n_truncated:
        progress.note(name, f"{calibration.n_truncated} calibration texts were cut to length")
    if calibration.may_leak:
        progress.note(
            name,
            "no row of the calibration data names its group: where rows were cut from one "
            "document, the check has seen it and promises too much",
        )
    if calibration.lacks_gain:
        progress.note(
            name,
            "by the labels of the calibration data the base is no worse than the fine-tune; "
            "quality is how well the fine-tune's own outputs are kept",
        )
    return calibration


def _for_nothing(options: Options) -> Options:
    """What to ask where the task vector is zero: no target could be measured, all of it is kept."""
    keep = 1.0 if options.max_nbytes is None else None
    return replace(options, target=None, keep=keep)


def _without_delta(fine_tune: FineTune) -> str:
    own = len(fine_tune.alignment.new) + len(fine_tune.alignment.grown)
    rest = f"only what the base lacks is stored ({own} tensors)" if own else "nothing is stored"
    return f"its weights equal the base's, the delta takes 0 bytes: {rest}"
