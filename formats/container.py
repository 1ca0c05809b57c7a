"""Reading a store: one committed generation, mapped read-only, without any lock.

What is committed never changes, so a reader needs no coordination with writers; it simply does not
see later generations, and outlives the replacement of the file by ``compact``.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Self

from formats.canonical import load
from formats.directory import TaskDirectory
from formats.errors import InvalidStateError, SectionLayoutError, TaskNotFoundError, located
from formats.files import BaseFile, read_file
from formats.index import (
    MAX_DIRECTORY_NBYTES,
    MAX_ROOT_NBYTES,
    BaseRecord,
    FileRef,
    RootIndex,
    StoredFile,
    TaskEntry,
)
from formats.layout import DATA_OFFSET, RootPointer
from formats.roots import RootSelection, select_root
from formats.sections import SectionRef
from formats.task_reader import TaskReader

if TYPE_CHECKING:
    from types import TracebackType

    from formats.buffers import Buffer


class Container:
    """One generation of a store. Use :meth:`open`; close it or use it as a context manager.

    Thread-safe. Arrays it hands out keep the mapping alive and are read-only.

    Attributes:
        path: As given.
        selection: How the generation was found, damaged root slots included.
        root: The root index.
        base: The base record.
    """

    def __init__(self, path: str, selection: RootSelection, data: mmap.mmap) -> None:
        self.path = path
        self.selection = selection
        self._mmap: mmap.mmap | None = data
        with located(path=path):
            self.root, self.base = _read_index(memoryview(data), selection.pointer)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Container:
        """Opens the newest committed generation.

        Raises:
            FileNotFoundError: There is no such file.
            FormatError: It is no store, damaged, or not one that this reader understands.
        """
        name = os.fspath(path)
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with located(path=name):
                selection = select_root(fd)
            nbytes = selection.pointer.committed_nbytes
            return cls(name, selection, mmap.mmap(fd, nbytes, access=mmap.ACCESS_READ))
        finally:
            os.close(fd)

    @property
    def generation(self) -> int:
        """Number of the generation that is read."""
        return self.selection.pointer.generation

    @property
    def nbytes(self) -> int:
        """Committed bytes of the file, everything included."""
        return self.selection.pointer.committed_nbytes

    def newest_generation(self) -> int:
        """Generation that the path holds now; reads no more than the root slots."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with located(path=self.path):
                return select_root(fd).pointer.generation
        finally:
            os.close(fd)

    def directory(self, task: str) -> TaskDirectory:
        """The directory of a task, verified and checked.

        Raises:
            TaskNotFoundError: There is no such task.
            FormatError: The directory is damaged or breaks a rule.
        """
        try:
            entry = self.root.tasks[task]
        except KeyError:
            known = ", ".join(sorted(self.root.tasks)[:10]) or "none"
            raise TaskNotFoundError(
                "no such task", path=self.path, expected=f"one of: {known}", actual=repr(task)
            ) from None
        return self._directory(task, entry)

    def task_reader(self, task: str) -> TaskReader:
        """A reader of a task's records; raises like :meth:`directory`."""
        directory = self.directory(task)
        return self._reader(directory, self.root.tasks[task])

    def base_reader(self) -> TaskReader:
        """A reader of the tensors of an embedded base, all of them ``DenseBits``.

        Raises:
            InvalidStateError: The base is external.
        """
        if self.root.base_data is None:
            raise InvalidStateError("the base is not embedded in the store", path=self.path)
        return self._reader(self._directory("", self.root.base_data), self.root.base_data)

    def file(self, ref: FileRef, *, base_file: BaseFile | None = None) -> bytes:
        """Content of an attached file, verified.

        Args:
            ref: From a task directory or the base record.
            base_file: Fetches a file of an external base, for files stored against it.

        Raises:
            MissingFileError: It can not be had without the base.
            FormatError: It is damaged.
        """
        with located(path=self.path, where=f"file {ref.hash}"):
            return read_file(
                ref,
                stored=self.root.files,
                section=self._stored,
                base=self.base,
                base_file=base_file,
            )

    def section(self, ref: SectionRef) -> memoryview:
        """Stored bytes of a section that the root index refers to; not verified."""
        return self._view()[ref.offset : ref.end]

    def close(self) -> None:
        """Ends reading; arrays that were handed out stay valid."""
        self._mmap = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<Container {self.path!r} generation={self.generation} "
            f"tasks={len(self.root.tasks)} nbytes={self.nbytes}>"
        )

    def _view(self) -> memoryview:
        if self._mmap is None:
            raise InvalidStateError("container is closed", path=self.path)
        return memoryview(self._mmap)

    def _stored(self, stored: StoredFile) -> Buffer:
        view = self.section(stored.section)
        stored.section.verify(view, "attached file")
        return view

    def _directory(self, task: str, entry: TaskEntry) -> TaskDirectory:
        with located(path=self.path, where=f"directory of task {task!r}"):
            frame = self.section(entry.directory)
            entry.directory.verify(frame, "directory")
            document = load(frame, max_nbytes=MAX_DIRECTORY_NBYTES)
            directory = TaskDirectory.from_json(document, name=task, base=self.base.tensors)
            directory.check_extent(entry.directory.offset - entry.first_offset)
            return directory

    def _reader(self, directory: TaskDirectory, entry: TaskEntry) -> TaskReader:
        extent = self._view()[entry.first_offset : entry.first_offset + entry.nbytes]
        return TaskReader(directory, base=self.base.tensors, extent=extent, path=self.path)


def _read_index(view: memoryview, pointer: RootPointer) -> tuple[RootIndex, BaseRecord]:
    """Root index and base record, verified and checked."""
    ref = SectionRef(pointer.offset, pointer.nbytes, pointer.checksum.hex())
    with located(where="root index"):
        frame = view[ref.offset : ref.end]
        ref.verify(frame, "root index")
        root = RootIndex.from_json(load(frame, max_nbytes=MAX_ROOT_NBYTES))
        root.check_layout(first=DATA_OFFSET, end=pointer.offset)
    with located(where="base record"):
        frame = view[root.base.offset : root.base.end]
        root.base.verify(frame, "base record")
        base = BaseRecord.from_json(load(frame, max_nbytes=MAX_DIRECTORY_NBYTES))
    if (root.base_data is None) != (base.storage == "external"):
        raise SectionLayoutError("base data and the storage of the base contradict each other")
    return root, base
