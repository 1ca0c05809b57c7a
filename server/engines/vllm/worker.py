"""vLLM's worker, which puts the task of each step in place before the step runs."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Any

import torch
from vllm.platforms import current_platform
from vllm.v1.worker.cpu_worker import CPUWorker
from vllm.v1.worker.gpu_worker import Worker

from nps_store.errors import TaskNotFoundError
from nps_store.store import Store
from nps_store.switcher import TaskSwitcher
from server.engines.vllm.cpu_weights import check_resident
from server.engines.vllm.options import Options, check_config
from server.engines.vllm.placed_model import PlacedModel
from server.engines.vllm.routing import TaskContent, target_of
from server.errors import EngineFailedError

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.lora.request import LoRARequest
    from vllm.v1.core.sched.output import SchedulerOutput


class SwitchingWorker:
    """What is added to a worker of vLLM, whichever it is."""

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
        self._in_place: TaskContent | None = None
        self._routes: dict[int, LoRARequest] = {}
        super().__init__(own, *args, **kwargs)

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load the base, and find out where its tensors lie.

        Raises:
            UnsafeLayoutError: Tasks cannot be put into this model.
        """
        super().load_model(*args, **kwargs)  # type: ignore[misc]
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        if current_platform.is_cpu():
            check_resident(model)
            # numba's threads are OpenMP's: where it starts more of them than vLLM bound to its
            # cores, every product of the model waits for threads that share a core.
            os.environ.setdefault("NUMBA_NUM_THREADS", str(torch.get_num_threads()))
        self._store = Store.open(self._options.store, base=self._options.base)
        self._switcher = TaskSwitcher(
            model,
            self._store,
            max_nbytes=self._options.max_nbytes,
            max_host_nbytes=self._options.max_host_nbytes,
            bound=PlacedModel(model, self._store),
        )

    def execute_model(self, scheduler_output: SchedulerOutput) -> Any:  # noqa: ANN401 (vLLM's union)
        """One step, with the weights of its task."""
        for request_id in scheduler_output.finished_req_ids:
            self._task_of.pop(request_id, None)
        for request in scheduler_output.scheduled_new_reqs:
            self._task_of[request.req_id] = target_of(request.lora_request)
            request.lora_request = None  # else the runner would look for its layers
        wanted = {self._task_of[request_id] for request_id in scheduler_output.num_scheduled_tokens}
        if len(wanted) > 1:
            names = sorted(str(task and task.name) for task in wanted)
            raise EngineFailedError(f"one step is of several tasks: {', '.join(names)}")
        for task in wanted:
            self._put_in_place(task)
        return super().execute_model(scheduler_output)  # type: ignore[misc]

    def add_lora(self, lora_request: LoRARequest) -> bool:
        """Prepare a task, so that what is wrong with it is known before a request is accepted.

        Raises:
            TaskNotFoundError: The store has no such task, or not with this content.
            FormatError: The stored task is damaged.
            UnsupportedTaskError: It does not fit the base as vLLM runs it.
        """
        task = target_of(lora_request)
        if task is not None:
            self._check_content(task)
            self._switcher.prepare(task.name)
        self._routes[lora_request.lora_int_id] = lora_request
        return True

    def remove_lora(self, lora_id: int) -> bool:
        """Forget a task; it must have no requests in flight."""
        return self._routes.pop(lora_id, None) is not None

    def list_loras(self) -> set[int]:
        """Numbers of the tasks that were added."""
        return set(self._routes)

    def pin_lora(self, lora_id: int) -> bool:
        """Tasks cannot be pinned: they leave memory by their last use alone."""
        return lora_id in self._routes

    def task_in_place(self) -> str | None:
        """Whose weights the model holds; None for the base."""
        return self._switcher.current

    def switch_statistics(self) -> dict[str, float]:
        """What the switcher did so far."""
        return dict(vars(self._switcher.statistics))

    def put_base_in_place(self) -> None:
        """For a look at the weights between requests."""
        self._switcher.switch_(None)

    def shutdown(self) -> None:
        """End the thread that prepares tasks."""
        if hasattr(self, "_switcher"):
            self._switcher.close()
            self._store.close()
        super().shutdown()  # type: ignore[misc]

    def _put_in_place(self, task: TaskContent | None) -> None:
        name = None if task is None else task.name
        if task == self._in_place and name == self._switcher.current:
            return
        if task is not None:
            self._check_content(task)
        self._switcher.switch_(name)
        self._in_place = task

    def _check_content(self, task: TaskContent) -> None:
        """The task as the request knew it is the one that the store shows, or will after a look."""
        for is_fresh in (False, True):
            if is_fresh:
                self._store.refresh()
            has = task.name in self._store.tasks
            if has and self._store.task(task.name).content_hash == task.content_hash:
                return
        raise TaskNotFoundError(
            f"the store has no task {task.name!r} with the content that was asked for",
            path=self._store.path,
        )


class SwitchingCpuWorker(SwitchingWorker, CPUWorker):
    """On the CPU."""


class SwitchingGpuWorker(SwitchingWorker, Worker):
    """On a CUDA GPU."""
