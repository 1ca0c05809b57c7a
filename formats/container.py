"""Reading a store: one committed generation, mapped read-only or fetched, without any lock.

What is committed never changes, so a reader needs no coordination with writers; it simply does not
see later generations, and outlives the replacement of the file by ``compact``.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Self

from formats.canonical import load
from formats.directory import TaskDirectory
from formats.errors import InvalidStateError, SectionLayoutError, TaskNotFoundError, located, named
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
from formats.sources import FetchedBytes, MappedBytes
from formats.task_reader import TaskReader

if TYPE_CHECKING:
    from formats.buffers import Buffer
    from formats.sources import ByteSource, SectionView

_BEFORE_ROOT_NBYTES = 16 << 10
"""Fetched along with a root index: a new store's base record and small files lie there."""


class Container:
    """One generation of a store. Use :meth:`open`; close it or use it as a context manager.

    Thread-safe. Arrays it hands out keep the mapping alive and are read-only.

    Attributes:
        path: As given; of a source its name.
        selection: How the generation was found, damaged root slots included.
        root: The root index.
        base: The base record.
    """

    def __init__(
        self,
        path: str,
        selection: RootSelection,
        data: SectionView,
        source: ByteSource | None = None,
    ) -> None:
        self.path = path
        self.selection = selection
        self._data: SectionView | None = data
        self._source = source
        self._last: TaskDirectory | None = None
        with located(path=path):
            self.root, self.base = _read_index(data, selection.pointer)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Container:
        """Opens the newest committed generation.

        Raises:
            OSError: There is no such file, or it can not be read; names it.
            FormatError: It is no store, damaged, or not one that this reader understands.
        """
        name = os.fspath(path)
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with located(path=name), named(name):
                selection = select_root(fd)
            nbytes = selection.pointer.committed_nbytes
            data = MappedBytes(mmap.mmap(fd, nbytes, access=mmap.ACCESS_READ))
            return cls(name, selection, data)
        finally:
            os.close(fd)

    @classmethod
    def open_source(cls, source: ByteSource, *, name: str = "source") -> Container:
        """Opens the newest committed generation behind an object that reads ranges.

        Opening takes two ranges and a task a third, as long as the base record is small and near
        the start of the file or its end, where writers put it.

        Args:
            source: Gives ranges of bytes; must stay usable as long as the container.
            name: For error messages.

        Raises:
            FormatError: It is no store, damaged, or not one that this reader understands.
        """
        fetched = FetchedBytes(source)
        with located(path=name):
            selection = select_root(fetched)
            pointer = selection.pointer
            first = max(DATA_OFFSET, pointer.offset - _BEFORE_ROOT_NBYTES)
            fetched.hold(first, pointer.committed_nbytes - first)
        return cls(name, selection, fetched, source)

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
        if self._source is not None:
            with located(path=self.path):
                return select_root(self._source).pointer.generation
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
        entry = self._entry(task)
        return self._directory(task, entry, self._bytes(entry.directory))

    def task_reader(self, task: str) -> TaskReader:
        """A reader of a task's records; raises like :meth:`directory`."""
        return self._reader(task, self._entry(task))

    def base_reader(self) -> TaskReader:
        """A reader of the tensors of an embedded base, all of them ``DenseBits``.

        Raises:
            InvalidStateError: The base is external.
        """
        if self.root.base_data is None:
            raise InvalidStateError("the base is not embedded in the store", path=self.path)
        return self._reader("", self.root.base_data)

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
        return self._bytes(ref)

    def close(self) -> None:
        """Ends reading; arrays that were handed out stay valid."""
        self._data = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<Container {self.path!r} generation={self.generation} "
            f"tasks={len(self.root.tasks)} nbytes={self.nbytes}>"
        )

    def _entry(self, task: str) -> TaskEntry:
        try:
            return self.root.tasks[task]
        except KeyError:
            known = ", ".join(sorted(self.root.tasks)[:10]) or "none"
            raise TaskNotFoundError(
                "no such task", path=self.path, expected=f"one of: {known}", actual=repr(task)
            ) from None

    def _bytes(self, ref: SectionRef) -> memoryview:
        if self._data is None:
            raise InvalidStateError("container is closed", path=self.path)
        with located(path=self.path):
            return self._data.view(ref.offset, ref.nbytes)

    def _stored(self, stored: StoredFile) -> Buffer:
        view = self.section(stored.section)
        stored.section.verify(view, "attached file")
        return view

    def _directory(self, task: str, entry: TaskEntry, frame: memoryview) -> TaskDirectory:
        last = self._last  # whoever loads a task asks for its directory more than once
        if last is not None and last.name == task:
            return last
        with located(path=self.path, where=f"directory of task {task!r}"):
            entry.directory.verify(frame, "directory")
            document = load(frame, max_nbytes=MAX_DIRECTORY_NBYTES)
            directory = TaskDirectory.from_json(document, name=task, base=self.base.tensors)
            directory.check_extent(entry.directory.offset - entry.first_offset)
            self._last = directory
            return directory

    def _reader(self, task: str, entry: TaskEntry) -> TaskReader:
        """Reads the whole extent at once; its directory is at its end."""
        extent = self._bytes(SectionRef(entry.first_offset, entry.nbytes, ""))
        directory = self._directory(task, entry, extent[entry.nbytes - entry.directory.nbytes :])
        return TaskReader(directory, base=self.base.tensors, extent=extent, path=self.path)


def _read_index(data: SectionView, pointer: RootPointer) -> tuple[RootIndex, BaseRecord]:
    """Root index and base record, verified and checked."""
    ref = SectionRef(pointer.offset, pointer.nbytes, pointer.checksum.hex())
    with located(where="root index"):
        frame = data.view(ref.offset, ref.nbytes)
        ref.verify(frame, "root index")
        root = RootIndex.from_json(load(frame, max_nbytes=MAX_ROOT_NBYTES))
        root.check_layout(first=DATA_OFFSET, end=pointer.offset)
    with located(where="base record"):
        frame = data.view(root.base.offset, root.base.nbytes)
        root.base.verify(frame, "base record")
        base = BaseRecord.from_json(load(frame, max_nbytes=MAX_DIRECTORY_NBYTES))
    if (root.base_data is None) != (base.storage == "external"):
        raise SectionLayoutError("base data and the storage of the base contradict each other")
    return root, base
