"""How a request says which task it is for: as a LoRA adapter that is none.

vLLM routes requests to adapters from its API down to the scheduler and the worker. A task takes
that way under its own name; in place of the adapter's path stands the task's content, which vLLM
makes part of every key of its prefix cache.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from vllm.lora.request import LoRARequest

from server.engines.vllm.contents import TaskContent

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.request import Request

SCHEME = "nps-task:"
_NEXT = "nps_next_task"
_NUMBER_NBYTES = 7


def route_to(task: TaskContent) -> LoRARequest:
    """What a request for a task carries.

    vLLM tells adapters apart by a number, too. It is made of the content, so that all processes
    that route requests to it agree.
    """
    digest = hashlib.sha256("\0".join(task).encode()).digest()
    number = 1 + int.from_bytes(digest[:_NUMBER_NBYTES], "little")
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


def task_of(request: Request) -> TaskContent | None:
    """The task that a request in the scheduler is for; None for the base."""
    return target_of(request.lora_request)


def announce(step: SchedulerOutput, following: TaskContent | None) -> None:
    """Let the workers know, with a step, which task comes after this one's turn."""
    setattr(step, _NEXT, following)


def next_task(step: SchedulerOutput) -> TaskContent | None:
    """What was announced with a step; None if nothing was, or the base."""
    following: TaskContent | None = getattr(step, _NEXT, None)
    return following
