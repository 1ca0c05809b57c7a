"""How a request says which task it is for: as a LoRA adapter that is none.

vLLM routes requests to adapters from its API down to the scheduler and the worker. A task takes
that way under its own name; in place of the adapter's path stands the task's content, which vLLM
makes part of every key of its prefix cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vllm.lora.request import LoRARequest

if TYPE_CHECKING:
    from nps_store.task import Task

SCHEME = "nps-task:"


class TaskContent(NamedTuple):
    """A task as it was when a request was made for it."""

    name: str
    content_hash: str


def route_to(task: Task, number: int) -> LoRARequest:
    """What a request for a task carries.

    Args:
        task: The task.
        number: From 1; another one for every task and every content of it.
    """
    return LoRARequest(task.name, number, SCHEME + task.content_hash)


def target_of(route: LoRARequest | None) -> TaskContent | None:
    """The task that a request is for; None for the base.

    Raises:
        ValueError: It is for a real adapter.
    """
    if route is None:
        return None
    if not route.lora_path.startswith(SCHEME):
        raise ValueError(f"{route.lora_name!r} is a LoRA adapter; this engine serves tasks")
    return TaskContent(route.lora_name, route.lora_path.removeprefix(SCHEME))
