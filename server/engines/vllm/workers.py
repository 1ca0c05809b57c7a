"""The workers of an engine, as an API server process sees them: asked by name, read as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nps_store.errors import UnsupportedTaskError
from server.engines.vllm.contents import TaskContent
from server.errors import TaskQuarantinedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vllm.engine.protocol import EngineClient

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


@dataclass(frozen=True)
class WorkersView:
    """What all workers know at one time.

    Attributes:
        withdrawn: Names of tasks that shall not be served, whatever the store has.
        states: Of every content that some process holds.
    """

    withdrawn: frozenset[str]
    states: Mapping[TaskContent, TaskState]


class Workers:
    """All workers of an engine; the methods are theirs."""

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine

    async def hold(self, content: TaskContent) -> None:
        """Have a content prepared and kept readable, until as many `release`."""
        await self._ask("hold_task", *content)

    async def release(self, content: TaskContent) -> None:
        """Undo one `hold`."""
        await self._ask("release_task", *content)

    async def pin(self, content: TaskContent, *, is_pinned: bool) -> None:
        """Keep a content in memory, or no longer."""
        await self._ask("pin_task", *content, is_pinned)

    async def withdraw(self, name: str, *, is_withdrawn: bool) -> None:
        """Note for all processes that a task shall not be served, or shall again."""
        await self._ask("withdraw_task", name, is_withdrawn)

    async def view(self) -> WorkersView:
        """What they know now."""
        replies = await self._ask("task_states")
        names = frozenset(name for reply in replies for name in reply["withdrawn"])
        return WorkersView(names, states_of(replies))

    async def statistics(self) -> list[dict[str, Any]]:
        """Of switches, by worker."""
        return await self._ask("task_statistics")

    async def _ask(self, method: str, *args: object) -> list[dict[str, Any]]:
        replies: list[dict[str, Any]] = await self._engine.collective_rpc(method, args=args)
        return replies


def states_of(replies: Sequence[Mapping[str, Any]]) -> dict[TaskContent, TaskState]:
    """By content, from what every worker answered to `task_states`."""
    of: dict[TaskContent, list[Mapping[str, Any]]] = {}
    for reply in replies:
        for each in reply["tasks"]:
            of.setdefault(TaskContent(*each["task"]), []).append(each)
    return {content: _combined(content, parts) for content, parts in of.items()}


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
