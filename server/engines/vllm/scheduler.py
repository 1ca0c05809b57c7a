"""vLLM's schedulers, showing themselves one task at a time.

A step of the model has one task's weights. While a step is scheduled, the requests of all other
tasks are out of sight: those that run keep their cache and are left out of some steps, as vLLM
allows. Tasks take turns of a quantum, so that a long output delays nobody by more than that.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from server.engines.vllm.options import Options
from server.engines.vllm.time_slices import TimeSlices

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.request import Request

    Task = tuple[str, str] | None


class OneTaskAtATime:
    """What is added to a scheduler of vLLM, whichever it is."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        quantum_s = Options.of(self.vllm_config).quantum_s  # type: ignore[attr-defined]
        self._turns: TimeSlices[Task] = TimeSlices(quantum_s, time.monotonic)

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """The next step, of the task whose turn it is."""
        task = self._turns.turn(map(_task, self._requests()))
        hidden = [request for request in self._requests() if _task(request) != task]
        with self._without(hidden):
            output: SchedulerOutput = super().schedule(*args, **kwargs)  # type: ignore[misc]
        if hidden and not output.total_num_scheduled_tokens:
            self._turns.end_turn()
            if any(_task(request) == task for request in self.waiting):
                self._make_room(task)
        return output

    def _requests(self) -> Iterator[Request]:
        """All requests that a step could be of, by their order in the queues."""
        return chain(self.running, self.kv_holding_waiting, self.waiting)

    @contextmanager
    def _without(self, hidden: Sequence[Request]) -> Iterator[None]:
        """Hide some requests; their order among themselves stays, which is all that counts."""
        absent = set(hidden)
        running = [request for request in self.running if request in absent]
        queues = {
            name: [request for request in getattr(self, name) if request in absent]
            for name in ("waiting", "kv_holding_waiting")
        }
        most = self.max_num_active_reqs
        self.running = [request for request in self.running if request not in absent]
        for name, requests in queues.items():
            if requests:
                getattr(self, name).remove_requests(requests)
        if self.use_v2_model_runner:  # type: ignore[attr-defined]  # it has a slot for each of them
            self.max_num_active_reqs = most - len(running)
        try:
            yield
        finally:
            self.max_num_active_reqs = most
            self.running += running
            for name, requests in queues.items():
                for request in requests:
                    getattr(self, name).add_request(request)

    def _make_room(self, task: Task) -> None:
        """Preempt the last request of another task, whose cache leaves no room for this one's."""
        for request in reversed(self.running):
            if _task(request) != task:
                self.running.remove(request)
                self._preempt_request(request, time.monotonic())  # type: ignore[attr-defined]
                return


def _task(request: Request) -> Task:
    """What a request is routed to, by name and content; None for the base."""
    route = request.lora_request
    return None if route is None else (route.lora_name, route.lora_path)


class OneTaskScheduler(OneTaskAtATime, Scheduler):
    """For engines that wait for a step before they schedule the next one."""


class OneTaskAsyncScheduler(OneTaskAtATime, AsyncScheduler):
    """For engines that schedule ahead."""
