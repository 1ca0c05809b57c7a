"""The life of a worker: it takes jobs from a pipe and answers with progress and decisions.

Only the parent writes the store. What a worker puts on disk lies below a directory of the parent's,
so it can be ended at any moment and nothing is left.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import TYPE_CHECKING

import torch

from nps_store.adapters import open_fine_tune
from nps_store.compress.admission import Job
from nps_store.compress.decision import decide
from nps_store.compress.fine_tune import FineTune
from nps_store.compress.writing import TaskSink

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path

    from formats.base import BaseTensor
    from nps_store.calibration import Row
    from nps_store.compress.journal import JournalFile
    from nps_store.compress.options import Options
    from nps_store.sources import BaseSource


@dataclass(frozen=True)
class Workplace:
    """What all workers of a call share.

    Attributes:
        open_base: Opens the base anew; files cannot be shared with a process.
        tensors: The base's identity.
        options: How to compress.
        n_threads: Of torch, for each worker.
        directory: Where a worker puts temporary files.
    """

    open_base: Callable[[], BaseSource]
    tensors: tuple[BaseTensor, ...]
    options: Options
    n_threads: int
    directory: str


@dataclass(frozen=True)
class Order:
    """A job on its way to a worker."""

    name: str
    directory: Path
    rows: list[Row] | None
    source_hash: str
    is_equal: bool
    journal: JournalFile | None

    @classmethod
    def of(cls, job: Job) -> Order:
        """What can be sent of a job."""
        return cls(
            name=job.fine_tune.name,
            directory=job.fine_tune.checkpoint.path,
            rows=job.rows,
            source_hash=job.source_hash,
            is_equal=job.is_equal,
            journal=job.journal,
        )

    def job(self, base: BaseSource, dtype: str | None) -> Job:
        """The job, on files opened by this process."""
        fine_tune = FineTune(self.name, open_fine_tune(self.directory, base), base, dtype=dtype)
        return Job(fine_tune, self.rows, self.source_hash, self.is_equal, self.journal)


@dataclass(frozen=True)
class Event:
    """A call of the progress listener."""

    method: str
    arguments: tuple[object, ...]


class Forward:
    """A progress listener that passes everything on."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def stage(self, task: str, what: str) -> None:
        self._pipe.send(Event("stage", (task, what)))

    def trial(self, task: str, keep: float, loss: float, count: int) -> None:
        self._pipe.send(Event("trial", (task, keep, loss, count)))

    def step(self, task: str, done: int, total: int) -> None:
        self._pipe.send(Event("step", (task, done, total)))

    def note(self, task: str, text: str) -> None:
        self._pipe.send(Event("note", (task, text)))


def _end_with_parent() -> None:
    """A parent that was killed could not end its workers."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def work(pipe: Connection, place: Workplace) -> None:
    """A worker's life: one order after the other, until nobody is there any more."""
    Thread(target=_end_with_parent, daemon=True).start()
    tempfile.tempdir = place.directory
    torch.set_num_threads(place.n_threads)
    base = place.open_base()
    sink = TaskSink(base, place.tensors)
    try:
        while True:
            order: Order = pipe.recv()
            try:
                job = order.job(base, place.options.dtype)
                answer: object = decide(job, sink, place.options, Forward(pipe))
            except Exception as error:  # noqa: BLE001 - it is the parent's to raise
                error.add_note(f"in the worker of task {order.name!r}:\n{traceback.format_exc()}")
                answer = error
            pipe.send(answer)
    except (EOFError, BrokenPipeError):
        return  # the parent has gone
