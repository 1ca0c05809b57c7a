"""Several tasks at a time, in processes of their own."""

from __future__ import annotations

import signal
import tempfile
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, cast

import torch

from nps_store.compress.worker import Event, Order, Workplace, work
from nps_store.errors import WorkerLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

    from nps_store.compress.admission import Job
    from nps_store.compress.decision import Decision
    from nps_store.compress.options import Options, Progress
    from nps_store.compress.writing import TaskSink
    from nps_store.sources import BaseSource


def decide_in_processes(
    jobs: Sequence[Job],
    sink: TaskSink,
    options: Options,
    progress: Progress,
    *,
    n_workers: int,
    open_base: Callable[[], BaseSource],
) -> list[Decision]:
    """Decide all jobs, `n_workers` at a time; equal to deciding one after the other.

    The first error ends all workers. Torch's threads are divided among them; a GPU is shared.

    Args:
        jobs: The checked tasks.
        sink: Knows the base's identity.
        options: How to compress.
        progress: Told what goes on, in the caller's thread.
        n_workers: Processes.
        open_base: Opens the base in a worker; must be picklable.

    Raises:
        NpsError: What a task's own error is.
        WorkerLostError: A worker ended without a word.
    """
    n_threads = max(1, torch.get_num_threads() // n_workers)
    with tempfile.TemporaryDirectory(prefix="nps-jobs-") as directory:
        place = Workplace(open_base, sink.tensors, options, n_threads, directory)
        decided: dict[int, Decision] = {}
        waiting = list(enumerate(jobs))[::-1]
        with _crew(place, n_workers) as workers:
            for worker in workers:
                worker.give(*waiting.pop())
            while len(decided) < len(jobs):
                for worker, message in _heard(workers):
                    if isinstance(message, Event):
                        getattr(progress, message.method)(*message.arguments)
                    elif isinstance(message, Exception):
                        raise message
                    else:
                        decided[worker.number] = cast("Decision", message)
                        if waiting:
                            worker.give(*waiting.pop())
        return [decided[number] for number in range(len(jobs))]


class _Worker:
    """One process and the pipe to it; `number` is that of the job it works on."""

    def __init__(self, place: Workplace) -> None:
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        self._process = context.Process(target=work, args=(other, place), daemon=True)
        with _undisturbed():
            self._process.start()
        other.close()
        self.number = -1
        self._task = ""

    def give(self, number: int, job: Job) -> None:
        self.number, self._task = number, job.fine_tune.name
        try:
            self.pipe.send(Order.of(job))
        except OSError as error:
            raise self._lost() from error

    def receive(self) -> object:
        try:
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def _lost(self) -> WorkerLostError:
        self._process.join()
        return WorkerLostError(
            f"task {self._task!r}: its worker process ended with code {self._process.exitcode}, "
            "which is the system's doing if negative (-9: memory may have run out); "
            "try fewer --jobs"
        )


@contextmanager
def _crew(place: Workplace, n_workers: int) -> Iterator[list[_Worker]]:
    """Worker processes that do not outlive the context."""
    with ExitStack() as ends:
        workers = []
        for _ in range(n_workers):
            workers.append(_Worker(place))
            ends.callback(workers[-1].end)
        yield workers


def _heard(workers: Sequence[_Worker]) -> Iterator[tuple[_Worker, object]]:
    """What has been said, once something has."""
    pipes = {worker.pipe: worker for worker in workers}
    for pipe in wait(list(pipes)):
        worker = pipes[cast("Connection", pipe)]
        yield worker, worker.receive()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Processes started here do not hear Ctrl-C, which is the parent's to answer."""
    resource_tracker.ensure_running()  # when it starts, it lets the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
