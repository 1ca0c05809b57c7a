"""Changing a store: one writer at a time, everything appended, visible by commit."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from formats.append import Appender
from formats.base_writer import BaseWriter
from formats.canonical import JSON, as_name, dump
from formats.compaction import compact
from formats.container import Container
from formats.draft import Draft
from formats.errors import InvalidStateError, StoreExistsError, located, named
from formats.index import MAX_ROOT_NBYTES, BaseRecord, BaseTensor, FileRef, TaskEntry
from formats.lock import open_locked
from formats.newfile import NewFile
from formats.task_writer import TaskWriter
from formats.verification import Finding, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

__all__ = ["ContainerWriter", "Finding", "TaskWriter", "compact", "verify"]


class ContainerWriter:
    """The single writer of a store. Use :meth:`create` or :meth:`open` as a context manager.

    Leaving without :meth:`commit` leaves the last generation; a store that was created and never
    committed does not appear at all. Not thread-safe.

    Attributes:
        path: Of the store, resolved.
        generation: The last committed generation, 0 before the first.
    """

    def __init__(self, path: str, fd: int, appender: Appender, draft: Draft) -> None:
        self.path = path
        self.generation = 0
        self._fd = fd
        self._appender = appender
        self._draft = draft
        self._committed_nbytes = appender.position
        self._current: TaskWriter | None = None
        self._new: NewFile | None = None
        self._replaced_fd: int | None = None

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
        replaced_fd = None
        try:
            replaced_fd = _lock_replaced(name, overwrite=overwrite, timeout_s=timeout_s)
            if replaced_fd is not None:
                with named(name):
                    os.fchmod(new.fd, os.fstat(replaced_fd).st_mode & 0o7777)
        except BaseException:
            new.discard()
            os.close(new.fd)
            if replaced_fd is not None:
                os.close(replaced_fd)
            raise
        writer = cls(name, new.fd, new.appender, Draft())
        writer._new, writer._replaced_fd = new, replaced_fd
        return writer

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, timeout_s: float = 10.0) -> ContainerWriter:
        """Opens a store for changes, after repairing a damaged root slot if there is one.

        Args:
            path: Of the store.
            timeout_s: Seconds to wait for another writer.

        Raises:
            FileNotFoundError: There is no such file.
            StoreLockedError: Another writer holds the store for longer.
            FormatError: It is no store, damaged, or not one that this reader understands.
        """
        name = os.path.realpath(path)
        fd = open_locked(name, timeout_s=timeout_s)
        try:
            with Container.open(name) as store:
                selection, draft = store.selection, Draft(store.root, store.base)
            pointer = selection.pointer
            os.ftruncate(fd, pointer.committed_nbytes)
            appender = Appender(fd, selection.superblock, pointer.committed_nbytes, path=name)
            for slot in selection.damaged_slots:
                behind = (pointer.generation - slot) % 2
                appender.write_slot(replace(pointer, generation=pointer.generation - behind))
        except BaseException:
            os.close(fd)
            raise
        writer = cls(name, fd, appender, draft)
        writer.generation = pointer.generation
        return writer

    @property
    def base(self) -> BaseRecord | None:
        """The base record as it is going to be committed."""
        return self._draft.base

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks as they are going to be committed."""
        return tuple(self._draft.tasks)

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
        with located(path=self.path):
            self._draft.set_base(
                BaseRecord(storage, tuple(tensors), dict(files or {}), path_hint, dict(meta or {}))
            )

    def base_writer(self) -> TaskWriter:
        """Begins the tensors of an embedded base; ``add`` takes their ``DenseBits``.

        Raises:
            InvalidStateError: There is no base, or it is external.
        """
        self._require_idle()
        with located(path=self.path):
            if self._draft.require_base().storage != "embedded":
                raise InvalidStateError("the base is external")
            return self._begin(BaseWriter, "", self._draft.set_base_data)

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
        with located(path=self.path):
            return self._draft.files.add(data, dictionary=dictionary, base=self._draft.base)

    def begin_task(
        self,
        name: str,
        *,
        prefix: str = "",
        dtype: str | None = None,
        dither: str | None = None,
    ) -> TaskWriter:
        """Begins a task; one at a time.

        Args:
            name: Of the task.
            prefix: What its checkpoint puts before the base's tensor names.
            dtype: The dtype it was compressed for, if not the base's.
            dither: Names the random numbers that its positions were selected with; records with
                a seed need it, which is then ``dither.tensor_seed(dither, name in the base)``.

        Raises:
            DuplicateNameError: The store has a task of that name; remove it first.
            InvalidStateError: There is no base yet, or another task is being written.
        """
        self._require_idle()
        with located(path=self.path):
            as_name(name, "task name")
            self._draft.require_absent(name)
            return self._begin(
                TaskWriter,
                name,
                lambda entry: self._draft.add_task(name, entry),
                prefix=prefix,
                dtype=dtype,
                dither=None if dither is None else as_name(dither, "dither"),
            )

    def remove_task(self, name: str) -> None:
        """Drops a task from the next generation; ``compact`` gives its bytes back.

        Raises:
            TaskNotFoundError: There is none.
        """
        self._require_open()
        with located(path=self.path):
            self._draft.remove_task(name)

    @property
    def recipes(self) -> dict[str, JSON]:
        """The recipes as they are going to be committed."""
        return dict(self._draft.recipes)

    def set_recipe(self, name: str, recipe: JSON) -> None:
        """Notes a virtual task, or another recipe in place of one of that name.

        Args:
            name: Of the recipe.
            recipe: What the layers above make of it; any JSON.

        Raises:
            InvalidRecordError: It is not JSON.
        """
        self._require_open()
        with located(path=self.path):
            self._draft.set_recipe(as_name(name, "recipe name"), recipe)

    def remove_recipe(self, name: str) -> None:
        """Drops a recipe.

        Raises:
            TaskNotFoundError: There is none of that name.
        """
        self._require_open()
        with located(path=self.path):
            self._draft.remove_recipe(name)

    def commit(self) -> int:
        """Makes all changes visible and durable, or none.

        Returns:
            The generation; the last one again when nothing changed.

        Raises:
            InvalidStateError: There is no base, it is incomplete, or a task is being written.
            MissingFileError: A file of an embedded base was not added.
        """
        self._require_idle()
        with located(path=self.path):
            self._draft.check_complete()
        if not self._draft.is_dirty:
            return self.generation
        root = self._draft.write(self._appender)
        document = self._appender.section(dump(root.to_json(), max_nbytes=MAX_ROOT_NBYTES))
        pointer = self._appender.write_trailer(document, self.generation + 1)
        # From here on a reader may find the new generation: it is never truncated again.
        self._committed_nbytes = pointer.committed_nbytes
        self._appender.write_slot(pointer)
        if self._new is not None:
            self._new.publish(pointer)
            self._new = None
        self._draft.committed(root)
        self.generation = pointer.generation
        return self.generation

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
            self._fd = -1
            if self._replaced_fd is not None:
                os.close(self._replaced_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _begin(
        self,
        kind: type[TaskWriter],
        name: str,
        take: Callable[[TaskEntry], None],
        *,
        prefix: str = "",
        dtype: str | None = None,
        dither: str | None = None,
    ) -> TaskWriter:
        def close(entry: TaskEntry | None) -> None:
            self._current = None
            if entry is not None:
                take(entry)

        self._draft.write_base(self._appender)
        self._current = kind(
            self._appender,
            self._draft.require_base().tensors,
            path=self.path,
            name=name,
            prefix=prefix,
            dtype=dtype,
            dither=dither,
            check_files=self._draft.check_files,
            on_close=close,
        )
        return self._current

    def _require_open(self) -> None:
        if self._fd < 0:
            raise InvalidStateError("writer is closed", path=self.path)

    def _require_idle(self) -> None:
        self._require_open()
        if self._current is not None:
            raise InvalidStateError(
                "a task is being written", path=self.path, hint="finish or abort it first"
            )


def _lock_replaced(path: str, *, overwrite: bool, timeout_s: float) -> int | None:
    """Locks the file that a new store is going to replace, if there is one."""
    if not Path(path).exists():
        return None
    if not overwrite:
        raise StoreExistsError("file exists", path=path, hint="choose another path or overwrite it")
    return open_locked(path, timeout_s=timeout_s)
