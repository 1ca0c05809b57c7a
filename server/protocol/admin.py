"""`/admin/tasks`: what an operator sees of the resident tasks."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class TaskState(BaseModel):
    """One version of one task.

    Attributes:
        nbytes: Bytes in memory.
        form: `patch` is switched in place, `copy` has a body of its own; None when not loaded.
        in_flight: Requests that hold it.
        reason: Why it failed.
    """

    task: str
    state: str
    content_hash: str | None = None
    nbytes: int = 0
    form: Literal["patch", "copy"] | None = None
    pinned: bool = False
    in_flight: int = 0
    reason: str | None = None


class TaskStates(BaseModel):
    """All of them, the base first; a version that drains is listed beside its successor."""

    object: Literal["list"] = "list"
    generation: int
    memory_budget: int
    memory_used: int
    data: list[TaskState]


class Refreshed(BaseModel):
    """Outcome of a look at the store."""

    changed: bool
    generation: int
