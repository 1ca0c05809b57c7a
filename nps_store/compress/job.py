"""Compressing fine-tunes into a new store or an existing one.

Everything that can be wrong with the input is found before the first byte is written, and all tasks
of one call appear together or not at all.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from formats.container import Container
from formats.writer import ContainerWriter
from nps_store.checkpoint import Checkpoint
from nps_store.compress.admission import admit, taken_name, with_journals
from nps_store.compress.decision import Decision, Stored, decide
from nps_store.compress.options import Options, Progress, Silent, TaskSource
from nps_store.compress.parallel import decide_in_processes
from nps_store.compress.writing import TaskSink
from nps_store.errors import BadOptionError, StoreExistsError
from nps_store.identity import EmbeddedBase
from nps_store.store import Store
from nps_store.task import task_nbytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nps_store.compress.admission import Job
    from nps_store.sources import BaseSource


def compress(
    base: str | os.PathLike[str],
    tasks: Sequence[TaskSource],
    out: str | os.PathLike[str],
    *,
    options: Options | None = None,
    embed_base: bool = False,
    overwrite: bool = False,
    jobs: int = 1,
    journal: str | os.PathLike[str] | None = None,
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
        jobs: Tasks to work on at a time, each in a process of its own. More than one needs a main
            module that can be imported (`if __name__ == "__main__":` around what it does).
        journal: Directory where the trials of each task are recorded. A call that was stopped goes
            on from there when it is made again, to the identical result.
        progress: Told what goes on.

    Raises:
        NpsError: Its subclasses say what is wrong with the input; nothing is written then.
        StoreExistsError: There is a file at `out`.
    """
    _check_jobs(jobs)
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
    admitted = admit(source, tasks, options, taken=(), progress=listener)
    sink = TaskSink.of(source)
    admitted = with_journals(admitted, sink, options, journal)
    decided = _decide(admitted, sink, options, listener, jobs, _opener(source, out))
    with ContainerWriter.create(out, overwrite=overwrite) as writer:
        sink.set_base(
            writer,
            embed=embed_base,
            name=source.path.absolute().name,
            path_hint=_hint(source.path, out.parent),
        )
        _write(writer, sink, admitted, decided)
    return _as_written(out, decided)


def add(
    path: str | os.PathLike[str],
    tasks: Sequence[TaskSource],
    *,
    base: str | os.PathLike[str] | None = None,
    options: Options | None = None,
    replace: bool = False,
    jobs: int = 1,
    journal: str | os.PathLike[str] | None = None,
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
        jobs: Tasks to work on at a time, each in a process of its own. More than one needs a main
            module that can be imported (`if __name__ == "__main__":` around what it does).
        journal: Directory where the trials of each task are recorded. A call that was stopped goes
            on from there when it is made again, to the identical result.
        progress: Told what goes on.

    Raises:
        TaskExistsError: A task of that name is in the store and `replace` is not set.
        NpsError: Its other subclasses say what is wrong with the input.
    """
    _check_jobs(jobs)
    options, listener = options or Options(), progress or Silent()
    with Store.open(path, base=base) as store:
        taken = () if replace else store.tasks
        admitted = admit(store.base, tasks, options, taken=taken, progress=listener)
        sink = TaskSink(store.base, store.base_tensors)
        admitted = with_journals(admitted, sink, options, journal)
        decided = _decide(admitted, sink, options, listener, jobs, _opener(store.base, path))
        with ContainerWriter.open(path) as writer:
            for task in decided:
                if task.stored.name in writer.tasks:
                    if not replace:
                        raise taken_name(task.stored.name)
                    writer.remove_task(task.stored.name)
            _write(writer, sink, admitted, decided)
    return _as_written(path, decided)


def _hint(base: Path, store_directory: Path) -> str:
    """Where to look for the base later: as given if absolute, else seen from the store, so that
    both can be moved together."""
    return str(base) if base.is_absolute() else os.path.relpath(base, store_directory)


def _decide(
    admitted: Sequence[Job],
    sink: TaskSink,
    options: Options,
    progress: Progress,
    n_workers: int,
    open_base: Callable[[], BaseSource],
) -> list[Decision]:
    n_workers = min(n_workers, len(admitted))
    if n_workers <= 1:
        return [decide(job, sink, options, progress) for job in admitted]
    return decide_in_processes(
        admitted, sink, options, progress, n_workers=n_workers, open_base=open_base
    )


def _opener(base: BaseSource, store: str | os.PathLike[str]) -> Callable[[], BaseSource]:
    """Opens a base anew, in whatever process it is called."""
    if isinstance(base, Checkpoint):
        return partial(Checkpoint, base.path)
    return partial(_own_base, store)


def _own_base(store: str | os.PathLike[str]) -> BaseSource:
    return EmbeddedBase(Container.open(store))


def _check_jobs(jobs: int) -> None:
    if jobs < 1:
        raise BadOptionError(f"--jobs is {jobs}; expected 1 or more")


def _write(
    writer: ContainerWriter, sink: TaskSink, admitted: Sequence[Job], decided: Sequence[Decision]
) -> None:
    for job, task in zip(admitted, decided, strict=True):
        sink.write(writer, job.fine_tune, task.encoding, meta=task.meta)
    writer.commit()


def _as_written(path: str | os.PathLike[str], decided: Sequence[Decision]) -> list[Stored]:
    with Container.open(path) as container:
        return [
            replace(task.stored, nbytes=task_nbytes(container, task.stored.name))
            for task in decided
        ]
