"""vLLM's schedulers, showing themselves one task at a time.

A step of the model has one task's weights. While a step is scheduled, the requests of all other
tasks are out of sight: those that run keep their cache and are left out of some steps, as vLLM
allows. Tasks take turns of at most a quantum, so that a long output delays nobody by more.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import create_request_queue
from vllm.v1.core.sched.scheduler import Scheduler

from server.engines.vllm.failed_step import FailedStep, finish_failed, tell
from server.engines.vllm.options import Options
from server.engines.vllm.queues import QueueByTask
from server.engines.vllm.routing import announce, task_of
from server.engines.vllm.time_slices import TimeSlices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.engine import EngineCoreOutputs
    from vllm.v1.outputs import ModelRunnerOutput

    from server.engines.vllm.contents import TaskContent

LEAST_SHARE = 1 / 4
"""Of a quantum: what the turn of a task with a single request may take."""


class OneTaskAtATime:
    """What is added to a scheduler of vLLM, whichever it is."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        quantum_s = Options.of(self.vllm_config).quantum_s  # type: ignore[attr-defined]
        self._turns: TimeSlices[TaskContent | None] = TimeSlices(quantum_s, time.monotonic)
        make = partial(create_request_queue, self.policy)  # type: ignore[attr-defined]
        self.waiting, self.kv_holding_waiting = QueueByTask(make), QueueByTask(make)

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """The next step, of the task whose turn it is."""
        task = self._turns.turn(self._shares())
        with self._only(task):
            output: SchedulerOutput = super().schedule(*args, **kwargs)  # type: ignore[misc]
        is_idle = not output.total_num_scheduled_tokens and self._turns.following != task
        if is_idle and not self._make_room(task):
            self._turns.end_turn()
        announce(output, self._turns.following)
        return output

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        """What came of a step; one whose task could not be put in place ends that task's
        requests."""
        is_failed = isinstance(model_runner_output, FailedStep)
        finished = finish_failed(self, model_runner_output.failed) if is_failed else []
        outputs: dict[int, EngineCoreOutputs] = super().update_from_output(  # type: ignore[misc]
            scheduler_output, model_runner_output
        )
        tell(outputs, finished)
        return outputs

    def _shares(self) -> dict[TaskContent | None, float]:
        """Who has work, and which part of a quantum each gets: as its batch is to the largest.

        A step takes about as long for few requests as for many, so that time is best spent where
        batches are full; those of a task that waits meanwhile fill up.
        """
        n_requests = Counter(map(task_of, self.running))
        n_requests.update(self.kv_holding_waiting.lengths)
        n_requests.update(self.waiting.lengths)
        batch = {task: min(n, self.max_num_active_reqs) for task, n in n_requests.items()}
        largest = max(batch.values(), default=1)
        return {task: max(LEAST_SHARE, n / largest) for task, n in batch.items()}

    @contextmanager
    def _only(self, task: TaskContent | None) -> Iterator[None]:
        """Hide all other requests; their order among themselves stays."""
        hidden = [request for request in self.running if task_of(request) != task]
        most = self.max_num_active_reqs  # of a task: hidden ones take no place in its batch
        self.running = [request for request in self.running if task_of(request) == task]
        if self.use_v2_model_runner:  # type: ignore[attr-defined]  # it has a slot for each of them
            slots = self.max_num_running_reqs - len(hidden)  # type: ignore[attr-defined]
            self.max_num_active_reqs = min(most, slots)
        try:
            with self.waiting.only(task), self.kv_holding_waiting.only(task):
                yield
        finally:
            self.max_num_active_reqs = most
            self.running += hidden

    def _make_room(self, task: TaskContent | None) -> bool:
        """Preempt another task's request, where these leave no room for any of this task's; says
        whether there was one."""
        with self.waiting.only(task):
            first = self.waiting.peek_request() if self.waiting else None
        if first is None or self._is_blocked_waiting_status(first.status):  # type: ignore[attr-defined]
            return False
        tasks = [task_of(request) for request in self.running]
        if task in tasks or not tasks:
            return False
        self._preempt_request(self.running.pop(), time.monotonic())  # type: ignore[attr-defined]
        return True


class OneTaskScheduler(OneTaskAtATime, Scheduler):
    """For engines that wait for a step before they schedule the next one."""


class OneTaskAsyncScheduler(OneTaskAtATime, AsyncScheduler):
    """For engines that schedule ahead."""
