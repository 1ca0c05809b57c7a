"""A step that did not run because its task could not be put in place: what the worker answers, and
what the scheduler makes of it. Other tasks go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vllm.v1.core.sched.output import CachedRequestData
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import RequestStatus

from server.engines.vllm.routing import task_of

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.request import Request

    from server.engines.vllm.contents import TaskContent


@dataclass
class FailedStep(ModelRunnerOutput):
    """No output.

    Attributes:
        failed: The task whose weights could not be put in place.
    """

    failed: TaskContent | None = None


def without_requests(step: SchedulerOutput) -> SchedulerOutput:
    """The step with nothing to compute: what it says of requests that are over still counts."""
    return replace(
        step,
        scheduled_new_reqs=[],
        scheduled_cached_reqs=CachedRequestData.make_empty(),
        num_scheduled_tokens={},
        total_num_scheduled_tokens=0,
    )


def finish_failed(scheduler: Scheduler, task: TaskContent | None) -> list[Request]:
    """End all requests of a task, waiting ones included; vLLM answers them with an error."""
    ids = [each.request_id for each in scheduler.requests.values() if task_of(each) == task]
    return scheduler.finish_requests(ids, RequestStatus.FINISHED_ERROR)


def tell(outputs: dict[int, EngineCoreOutputs], finished: list[Request]) -> None:
    """Add to a step's outputs that these requests ended."""
    for request in finished:
        output = EngineCoreOutput(
            request_id=request.request_id,
            new_token_ids=[],
            finish_reason=request.get_finished_reason(),
            events=request.take_events(),
            trace_headers=request.trace_headers,
        )
        outputs.setdefault(request.client_index, EngineCoreOutputs()).outputs.append(output)
