"""What the workers of an engine say of the tasks that they hold, read as one answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nps_store.errors import UnsupportedTaskError
from server.engines.vllm.contents import TaskContent
from server.errors import TaskQuarantinedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from formats.errors import NpsError

_WORST_FIRST = ("failed", "loading", "absent", "ready")


@dataclass(frozen=True)
class TaskState:
    """One content of a task.

    Attributes:
        state: `ready`; `absent`, when it left memory and comes back as soon as it is wanted;
            `loading` or `failed`.
        nbytes: Bytes in memory, of all workers.
        error: Why it failed.
    """

    content: TaskContent
    state: str
    nbytes: int
    is_pinned: bool
    error: NpsError | None


def states_of(replies: Sequence[Mapping[str, Any]]) -> dict[TaskContent, TaskState]:
    """By content, from what every worker answered to `task_states`."""
    of: dict[TaskContent, list[Mapping[str, Any]]] = {}
    for reply in replies:
        for each in reply["tasks"]:
            of.setdefault(TaskContent(*each["task"]), []).append(each)
    return {content: _combined(content, parts) for content, parts in of.items()}


def withdrawn(replies: Sequence[Mapping[str, Any]]) -> set[str]:
    """Names of the tasks that shall not be served."""
    return {name for reply in replies for name in reply["withdrawn"]}


def _combined(content: TaskContent, parts: Sequence[Mapping[str, Any]]) -> TaskState:
    worst = min(parts, key=lambda part: _WORST_FIRST.index(part["state"]))
    return TaskState(
        content,
        worst["state"],
        sum(part["nbytes"] for part in parts),
        all(part["is_pinned"] for part in parts),
        None if worst["error"] is None else _error(content.name, *worst["error"]),
    )


def _error(name: str, id_: str, message: str) -> NpsError:
    if id_ == UnsupportedTaskError.id:
        return UnsupportedTaskError(message)
    return TaskQuarantinedError(f"task {name!r} cannot be served: {message}")
