"""What is added to vLLM's worker: the task of each step is put in place before the step runs."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any

import torch
from vllm.distributed.parallel_state import get_tp_group

from server.engines.vllm.contents import TaskContent
from server.engines.vllm.failed_step import FailedStep, without_requests
from server.engines.vllm.options import Options, check_config
from server.engines.vllm.residency import Residency
from server.engines.vllm.routing import next_task, target_of
from server.errors import EngineFailedError

if TYPE_CHECKING:
    from torch import nn
    from vllm.config import VllmConfig
    from vllm.lora.request import LoRARequest
    from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput

logger = logging.getLogger(__name__)


class SwitchingWorker:
    """What is added to a worker of vLLM, whichever it is.

    The methods from `hold_task` on are called by name, through vLLM's `collective_rpc`.
    """

    def __init__(self, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        """A worker without LoRA layers: of LoRA only the routing is used.

        Raises:
            BadOptionError: vLLM was started in a way that tasks cannot be served in.
        """
        check_config(vllm_config)
        self._options = Options.of(vllm_config)
        own = copy.copy(vllm_config)  # the scheduler may share the original, and needs its routing
        own.lora_config = None
        self._task_of: dict[str, TaskContent | None] = {}
        self._failed_step: FailedStep | None = None
        super().__init__(own, *args, **kwargs)

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load the base, and find out where its tensors lie.

        Raises:
            UnsafeLayoutError: Tasks cannot be put into this model.
        """
        super().load_model(*args, **kwargs)  # type: ignore[misc]
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        self.check_model(model)
        self._residency = Residency(model, self._options)

    def check_model(self, model: nn.Module) -> None:
        """Raises UnsafeLayoutError where what is written into its weights would change nothing."""

    def execute_model(self, scheduler_output: SchedulerOutput) -> Any:  # noqa: ANN401 (vLLM's union)
        """One step, with the weights of its task; none, if they cannot be put in place."""
        task = self._task_of_step(scheduler_output)
        if scheduler_output.num_scheduled_tokens and not self._is_put_in_place(task):
            super().execute_model(without_requests(scheduler_output))  # type: ignore[misc]
            self._failed_step = FailedStep([], {}, failed=task)
            return None  # as after any step: `sample_tokens` has its output
        if (following := next_task(scheduler_output)) is not None:
            self._residency.prefetch(following)
        return super().execute_model(scheduler_output)  # type: ignore[misc]

    def sample_tokens(self, grammar_output: GrammarOutput | None) -> Any:  # noqa: ANN401 (vLLM's union)
        """The output of the last step."""
        failed, self._failed_step = self._failed_step, None
        return failed or super().sample_tokens(grammar_output)  # type: ignore[misc]

    def add_lora(self, lora_request: LoRARequest) -> bool:
        """Refuse adapters, which vLLM would otherwise be asked to load."""
        raise ValueError(f"{lora_request.lora_name!r} is a LoRA adapter; this engine serves tasks")

    def shutdown(self) -> None:
        """End the thread that prepares tasks."""
        if hasattr(self, "_residency"):
            self._residency.close()
        super().shutdown()  # type: ignore[misc]

    def hold_task(self, name: str, content_hash: str) -> None:
        """Begin to prepare a task that requests may come for."""
        self._residency.hold(TaskContent(name, content_hash))

    def release_task(self, name: str, content_hash: str) -> None:
        """Undo one `hold_task`, when none of its requests is in flight."""
        self._residency.release(TaskContent(name, content_hash))

    def pin_task(self, name: str, content_hash: str, is_pinned: bool) -> None:
        """Keep a task in memory, or no longer."""
        self._residency.pin(TaskContent(name, content_hash), is_pinned=is_pinned)

    def withdraw_task(self, name: str, is_withdrawn: bool) -> None:
        """Note that a task of the store shall not be served, or shall again."""
        withdrawn = self._residency.withdrawn
        (withdrawn.add if is_withdrawn else withdrawn.discard)(name)

    def task_states(self) -> dict[str, Any]:
        """All held tasks, and the names of those that are withdrawn."""
        return {
            "withdrawn": sorted(self._residency.withdrawn),
            "tasks": self._residency.states(),
        }

    def task_statistics(self) -> dict[str, Any]:
        """What switches took so far."""
        return self._residency.statistics()

    def recent_switches_s(self) -> list[float]:
        """Seconds of each of the last switches."""
        return self._residency.recent_switches_s()

    def put_base_in_place(self) -> None:
        """For a look at the weights between requests."""
        self._residency.switch_(None)

    def _task_of_step(self, step: SchedulerOutput) -> TaskContent | None:
        for request_id in step.finished_req_ids:
            self._task_of.pop(request_id, None)
        for request in step.scheduled_new_reqs:
            self._task_of[request.req_id] = target_of(request.lora_request)
            request.lora_request = None  # else the runner would look for its layers
        wanted = {self._task_of[request_id] for request_id in step.num_scheduled_tokens}
        if len(wanted) > 1:
            names = sorted(str(task and task.name) for task in wanted)
            raise EngineFailedError(f"one step is of several tasks: {', '.join(names)}")
        return wanted.pop() if wanted else None

    def _is_put_in_place(self, task: TaskContent | None) -> bool:
        """Switch, if need be; all processes of a model have the task in place, or none has."""
        if task == self._residency.current:
            return True
        error = self._residency.switch_(task)
        if task is not None and self._is_true_anywhere(error is not None):
            error = error or EngineFailedError("another process could not put it in place")
            self._residency.fail(task, error)
            logger.error("task %r cannot be put in place: %s", task.name, error)
            return False
        return True

    def _is_true_anywhere(self, is_true: bool) -> bool:
        group = get_tp_group()
        if group.world_size == 1:
            return is_true
        flag = torch.tensor(int(is_true))
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, group.cpu_group)
        return bool(flag)
