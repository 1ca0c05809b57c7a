"""The contents of a store's tasks that somebody still needs, whatever became of the store since."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from nps_store.errors import TaskNotFoundError
from nps_store.store import Store
from server.errors import EngineFailedError

if TYPE_CHECKING:
    import os


class TaskContent(NamedTuple):
    """A task as it was when a request was made for it."""

    name: str
    content_hash: str


class Contents:
    """A store, and snapshots of it in which held contents can be read.

    What is replaced or removed stays readable as long as it is held: a store's file is never
    changed where it was committed, and one that `compact` replaces lives on with its reader.
    """

    def __init__(self, path: str | os.PathLike[str], base: str | os.PathLike[str] | None) -> None:
        """Open the newest generation; raises like `Store.open`."""
        self.newest = Store.open(path, base=base)
        self._snapshots: dict[TaskContent, Store] = {}
        self._n_holders: Counter[TaskContent] = Counter()

    def __contains__(self, task: TaskContent) -> bool:
        return task in self._snapshots

    def hold(self, task: TaskContent) -> None:
        """Keep a content readable until it was released as often as it was held.

        Raises:
            TaskNotFoundError: The store has no such task, or not with this content.
            EngineFailedError: The store was remade for another base.
        """
        if task not in self._snapshots:
            self._snapshots[task] = self._found(task)
        self._n_holders[task] += 1

    def release(self, task: TaskContent) -> bool:
        """Say that one holder less needs it; True if it was the last."""
        self._n_holders[task] -= 1
        if self._n_holders[task] > 0:
            return False
        del self._n_holders[task]
        return self._snapshots.pop(task, None) is not None

    def of(self, task: TaskContent) -> Store:
        """A store in which the task has this content.

        Raises:
            TaskNotFoundError: Nobody holds it.
        """
        if task not in self._snapshots:
            raise TaskNotFoundError(
                f"task {task.name!r} is not being served with content {task.content_hash}",
                path=self.newest.path,
            )
        return self._snapshots[task]

    def close(self) -> None:
        """Release the file."""
        self.newest.close()

    def _found(self, task: TaskContent) -> Store:
        if self.newest.content_hash(task.name) != task.content_hash:
            base = self.newest.base
            self.newest.refresh()
            if self.newest.base is not base:
                raise EngineFailedError(
                    f"{self.newest.path}: the store was remade for another base; "
                    "start the server again"
                )
        if self.newest.content_hash(task.name) != task.content_hash:
            raise TaskNotFoundError(
                f"the store has no task {task.name!r} with the content that was asked for",
                path=self.newest.path,
            )
        return self.newest.snapshot()
