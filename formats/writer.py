"""Changing a store: one writer at a time, everything appended, visible by commit."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from formats.append import Appender
from formats.canonical import JSON, as_name, dump
from formats.compaction import compact
from formats.container import Container
from formats.errors import (
    DuplicateNameError,
    InvalidStateError,
    StoreExistsError,
    TaskNotFoundError,
)
from formats.file_writer import FileWriter
from formats.index import BaseRecord, BaseTensor, FileRef, RootIndex, TaskEntry
from formats.lock import open_locked
from formats.newfile import NewFile
from formats.task_writer import BaseWriter, TaskWriter
from formats.verification import Finding, verify

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

__all__ = ["ContainerWriter", "Finding", "TaskWriter", "compact", "verify"]


class ContainerWriter:
    """The single writer of a store. Use :meth:`create` or :meth:`open` as a context manager.

    Leaving without :meth:`commit` leaves the last generation; a store that was created and never
    committed does not appear at all. Not thread-safe.
    """

    def __init__(
        self, path: str, fd: int, appender: Appender, *, new: NewFile | None, replaced: int | None
    ) -> None:
        self._path = path
        self._fd = fd
        self._appender = appender
        self._new = new
        self._replaced = replaced
        self._committed_nbytes = appender.position
        self._generation = 0
        self._base: BaseRecord | None = None
        self._base_is_written = True
        self._root: RootIndex | None = None
        self._base_data: TaskEntry | None = None
        self._tasks: dict[str, TaskEntry] = {}
        self._files = FileWriter({})
        self._current: TaskWriter | None = None
        self._is_dirty = new is not None

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], *, overwrite: bool = False, timeout_s: float = 0.0
    ) -> ContainerWriter:
        """Begins a new store, which appears at ``path`` with its first commit.

        Args:
            path: Where it is going to be.
            overwrite: Whether that commit may replace a file; its readers go on undisturbed.
            timeout_s: Seconds to wait for another writer.

        Raises:
            StoreExistsError: A file is there and ``overwrite`` is false.
            StoreLockedError: Another writer creates or changes the store.
        """
        name = os.path.realpath(path)
        new = NewFile(name, timeout_s=timeout_s)
        try:
            replaced = _lock_replaced(name, overwrite=overwrite, timeout_s=timeout_s)
            if replaced is not None:
                os.fchmod(new.fd, os.fstat(replaced).st_mode & 0o7777)
        except BaseException:
            new.discard()
            os.close(new.fd)
            raise
        return cls(name, new.fd, new.appender, new=new, replaced=replaced)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, timeout_s: float = 10.0) -> ContainerWriter:
        """Opens a store for changes, after repairing a damaged root slot if there is one.

        Args:
            path: Of the store.
            timeout_s: Seconds to wait for another writer.

        Raises:
            StoreLockedError: Another writer holds the store for longer.
            FormatError: It is no store, damaged, or not one that this reader understands.
        """
        name = os.path.realpath(path)
        fd = open_locked(name, timeout_s=timeout_s)
        try:
            with Container.open(name) as store:
                pointer, superblock = store.selection.pointer, store.selection.superblock
                appender = Appender(fd, superblock, pointer.committed_nbytes)
                writer = cls(name, fd, appender, new=None, replaced=None)
                writer._resume(store)
            os.ftruncate(fd, pointer.committed_nbytes)
            for slot in store.selection.damaged_slots:
                behind = (pointer.generation - slot) % 2
                appender.write_slot(replace(pointer, generation=pointer.generation - behind))
        except BaseException:
            os.close(fd)
            raise
        return writer

    @property
    def path(self) -> str:
        """Of the store, resolved."""
        return self._path

    @property
    def generation(self) -> int:
        """The last committed generation, 0 before the first."""
        return self._generation

    @property
    def base(self) -> BaseRecord | None:
        """The base record as it is going to be committed."""
        return self._base

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks as they are going to be committed."""
        return tuple(self._tasks)

    def set_base(
        self,
        *,
        storage: str,
        tensors: Sequence[BaseTensor],
        files: Mapping[str, FileRef] | None = None,
        path_hint: str | None = None,
        meta: Mapping[str, JSON] | None = None,
    ) -> None:
        """States what all tasks are relative to.

        Once a store has tasks this may change where the base is and what is noted about it, not
        the base itself.

        Args:
            storage: "external" or "embedded"; the latter also takes :meth:`base_writer`.
            tensors: All tensors of the base with the hashes of their raw bits.
            files: The base's attached files; those of an embedded base must be added.
            path_hint: Where an external base was found.
            meta: Anything else that is JSON.

        Raises:
            InvalidStateError: Tasks depend on another base.
            FormatError: The record breaks a rule of the format.
        """
        self._require_idle()
        base = BaseRecord(storage, tuple(tensors), dict(files or {}), path_hint, dict(meta or {}))
        BaseRecord.from_json(base.to_json())
        dump(base.to_json())
        before = self._base
        same = before is not None and before.tensors == base.tensors
        if before is not None and self._tasks:
            kept = set(base.files.values()).issuperset(before.files.values())
            if not same or not kept:
                raise InvalidStateError(
                    "the store has tasks that depend on its base",
                    path=self._path,
                    hint="create another store for another base",
                )
        if not same or storage == "external":
            self._base_data = None
        self._base = base
        self._base_is_written = False
        self._is_dirty = True

    def base_writer(self) -> TaskWriter:
        """Begins the tensors of an embedded base; ``add`` takes their ``DenseBits``.

        Raises:
            InvalidStateError: There is no base, or it is external.
        """
        self._require_idle()
        base = self._require_base()
        if base.storage != "embedded":
            raise InvalidStateError("the base is external", path=self._path)

        def close(entry: TaskEntry | None) -> None:
            self._current = None
            if entry is not None:
                self._base_data, self._is_dirty = entry, True

        self._current = BaseWriter(
            self._appender,
            base.tensors,
            name="",
            prefix="",
            dtype=None,
            check_files=self._check_files,
            on_close=close,
        )
        return self._current

    def add_file(self, data: bytes, *, dictionary: bytes | None = None) -> FileRef:
        """Attaches a file; free when the store has it or when an external base does.

        Args:
            data: Its content.
            dictionary: Content of a similar file of the base or the store. The difference is kept
                where that is smaller.

        Raises:
            MissingFileError: ``dictionary`` is neither in the store nor in its base.
        """
        self._require_open()
        return self._files.add(data, dictionary=dictionary, base=self._base)

    def begin_task(self, name: str, *, prefix: str = "", dtype: str | None = None) -> TaskWriter:
        """Begins a task; one at a time.

        Args:
            name: Of the task.
            prefix: What its checkpoint puts before the base's tensor names.
            dtype: The dtype it was compressed for, if not the base's.

        Raises:
            DuplicateNameError: The store has a task of that name; remove it first.
            InvalidStateError: There is no base yet, or another task is being written.
        """
        self._require_idle()
        base = self._require_base()
        as_name(name, "task name")
        if name in self._tasks:
            raise DuplicateNameError(
                "task exists", path=self._path, actual=repr(name), hint="remove it first"
            )

        def close(entry: TaskEntry | None) -> None:
            self._current = None
            if entry is not None:
                self._tasks[name], self._is_dirty = entry, True

        self._current = TaskWriter(
            self._appender,
            base.tensors,
            name=name,
            prefix=prefix,
            dtype=dtype,
            check_files=self._check_files,
            on_close=close,
        )
        return self._current

    def remove_task(self, name: str) -> None:
        """Drops a task from the next generation; ``compact`` gives its bytes back.

        Raises:
            TaskNotFoundError: There is none.
        """
        self._require_open()
        if name not in self._tasks:
            raise TaskNotFoundError("no such task", path=self._path, actual=repr(name))
        del self._tasks[name]
        self._is_dirty = True

    def commit(self) -> int:
        """Makes all changes visible and durable, or none.

        Returns:
            The generation; the last one again when nothing changed.

        Raises:
            InvalidStateError: There is no base, it is incomplete, or a task is being written.
            MissingFileError: A file of an embedded base was not added.
        """
        self._require_idle()
        base = self._require_base()
        if base.storage == "embedded":
            if self._base_data is None:
                raise InvalidStateError("tensors of the embedded base are missing", path=self._path)
            self._check_files(base.files)
        if not self._is_dirty and not self._files.is_dirty:
            return self._generation
        files = self._files.write(self._appender)
        if self._root is None or not self._base_is_written:
            section = self._appender.section(dump(base.to_json()))
        else:
            section = self._root.base
        former = self._root or RootIndex(section)
        root = replace(
            former, base=section, base_data=self._base_data, tasks=dict(self._tasks), files=files
        )
        document = self._appender.section(dump(root.to_json()))
        pointer = self._appender.write_trailer(document, self._generation + 1)
        # From here on a reader may find the new generation: it is never truncated again.
        self._committed_nbytes = pointer.committed_nbytes
        self._appender.write_slot(pointer)
        if self._new is not None:
            self._new.publish(pointer)
            self._new = None
        self._root, self._generation = root, pointer.generation
        self._base_is_written, self._is_dirty = True, False
        return self._generation

    def close(self) -> None:
        """Ends writing; what was not committed is gone."""
        if self._fd < 0:
            return
        try:
            if self._new is not None:
                self._new.discard()
            else:
                os.ftruncate(self._fd, self._committed_nbytes)
        finally:
            os.close(self._fd)
            if self._replaced is not None:
                os.close(self._replaced)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _resume(self, store: Container) -> None:
        """Takes over what an opened store holds."""
        self._generation = store.generation
        self._base, self._root = store.base, store.root
        self._base_data = store.root.base_data
        self._tasks = dict(store.root.tasks)
        self._files = FileWriter(store.root.files)

    def _check_files(self, files: Mapping[str, FileRef]) -> None:
        self._files.check(files, base=self._base)

    def _require_open(self) -> None:
        if self._fd < 0:
            raise InvalidStateError("writer is closed", path=self._path)

    def _require_idle(self) -> None:
        self._require_open()
        if self._current is not None:
            raise InvalidStateError(
                "a task is being written", path=self._path, hint="finish or abort it first"
            )

    def _require_base(self) -> BaseRecord:
        if self._base is None:
            raise InvalidStateError("the store has no base yet", path=self._path, hint="set_base")
        return self._base


def _lock_replaced(path: str, *, overwrite: bool, timeout_s: float) -> int | None:
    """Locks the file that a new store is going to replace, if there is one."""
    if not Path(path).exists():
        return None
    if not overwrite:
        raise StoreExistsError("file exists", path=path, hint="choose another path or overwrite it")
    return open_locked(path, timeout_s=timeout_s)
