"""The next generation in the making: what a writer has gathered and not yet committed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from formats.canonical import JSON, dump
from formats.errors import DuplicateNameError, InvalidStateError, TaskNotFoundError
from formats.file_writer import FileWriter
from formats.index import MAX_DIRECTORY_NBYTES, BaseRecord, FileRef, RootIndex, TaskEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from formats.append import Appender
    from formats.sections import SectionRef


class Draft:
    """Contents of the generation that the next commit is going to make.

    Args:
        root: The generation it starts from, None for a new store.
        base: The base record of that.

    Attributes:
        base: The base record, None before there is one.
        tasks: Entries by name.
        recipes: By name.
        files: Attached files.
    """

    def __init__(self, root: RootIndex | None = None, base: BaseRecord | None = None) -> None:
        self._root = root
        self.base = base
        self.tasks = {} if root is None else dict(root.tasks)
        self.recipes = {} if root is None else dict(root.recipes)
        self.files = FileWriter({} if root is None else root.files)
        self._base_data = None if root is None else root.base_data
        self._base_section = None if root is None else root.base
        self._is_dirty = root is None

    @property
    def is_dirty(self) -> bool:
        """Whether a commit would change anything."""
        return self._is_dirty or self.files.is_dirty

    def require_base(self) -> BaseRecord:
        """The base record.

        Raises:
            InvalidStateError: There is none yet.
        """
        if self.base is None:
            raise InvalidStateError("the store has no base yet", hint="state it with set_base")
        return self.base

    def set_base(self, base: BaseRecord) -> None:
        """Replaces the base record; under tasks only by one with the same tensors and files.

        Raises:
            InvalidStateError: Tasks depend on another base.
            FormatError: The record breaks a rule of the format.
            InvalidRecordError: Its meta is not JSON.
        """
        BaseRecord.from_json(base.to_json())
        dump(base.to_json(), max_nbytes=MAX_DIRECTORY_NBYTES)
        before = self.base
        same = before is not None and before.tensors == base.tensors
        if before is not None and self.tasks:
            keeps_files = set(base.files.values()).issuperset(before.files.values())
            if not same or not keeps_files:
                raise InvalidStateError(
                    "the store has tasks that depend on its base",
                    hint="create another store for another base",
                )
        if not same or base.storage == "external":
            self._base_data = None
        self.base = base
        self._base_section = None
        self._is_dirty = True

    def set_base_data(self, entry: TaskEntry) -> None:
        """Takes the tensors of an embedded base."""
        self._base_data = entry
        self._is_dirty = True

    def require_absent(self, name: str) -> None:
        """Checks that a task name is free.

        Raises:
            DuplicateNameError: It is not.
        """
        if name in self.tasks:
            raise DuplicateNameError("task exists", actual=repr(name), hint="remove it first")

    def add_task(self, name: str, entry: TaskEntry) -> None:
        """Takes a finished task."""
        self.tasks[name] = entry
        self._is_dirty = True

    def remove_task(self, name: str) -> None:
        """Drops a task.

        Raises:
            TaskNotFoundError: There is none of that name.
        """
        if name not in self.tasks:
            raise TaskNotFoundError("no such task", actual=repr(name))
        del self.tasks[name]
        self._is_dirty = True

    def set_recipe(self, name: str, recipe: JSON) -> None:
        """Takes a recipe.

        Raises:
            InvalidRecordError: It is not JSON.
        """
        dump(recipe)
        self.recipes[name] = recipe
        self._is_dirty = True

    def remove_recipe(self, name: str) -> None:
        """Drops a recipe.

        Raises:
            TaskNotFoundError: There is none of that name.
        """
        if name not in self.recipes:
            raise TaskNotFoundError("no such recipe", actual=repr(name))
        del self.recipes[name]
        self._is_dirty = True

    def check_files(self, files: Mapping[str, FileRef]) -> None:
        """Checks that every file can be found again.

        Raises:
            MissingFileError: One can not.
        """
        self.files.check(files, base=self.base)

    def check_complete(self) -> None:
        """Checks that a commit may follow.

        Raises:
            InvalidStateError: There is no base, or an embedded one lacks its tensors.
            MissingFileError: A file of an embedded base was not added.
        """
        base = self.require_base()
        if base.storage == "embedded":
            if self._base_data is None:
                raise InvalidStateError(
                    "tensors of the embedded base are missing", hint="write them with base_writer"
                )
            self.check_files(base.files)

    def write_base(self, appender: Appender) -> SectionRef:
        """The base record's section, written unless it is already.

        The first task begins with it, so that it lies at the head of a new store, where readers of
        a far store find it without asking for it.
        """
        if self._base_section is None:
            self._base_section = appender.section(
                dump(self.require_base().to_json(), max_nbytes=MAX_DIRECTORY_NBYTES)
            )
        return self._base_section

    def write(self, appender: Appender) -> RootIndex:
        """Writes waiting files and a base record not yet written; the root index to commit."""
        files = self.files.write(appender)
        section = self.write_base(appender)
        return replace(
            self._root or RootIndex(section),
            base=section,
            base_data=self._base_data,
            tasks=dict(self.tasks),
            files=files,
            recipes=dict(self.recipes),
        )

    def committed(self, root: RootIndex) -> None:
        """Goes on from a generation that was just committed."""
        self._root = root
        self._is_dirty = False
