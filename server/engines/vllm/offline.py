"""Any task of a store from one vLLM engine within a script.

with TaskLLM("tasks.nps", base="base", max_model_len=4096) as llm:
    outputs = llm.generate(prompts, SamplingParams(temperature=0), task="summarise")
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Self

from nps_store.checkpoint import Checkpoint
from nps_store.errors import BadOptionError
from nps_store.store import Store
from server.engines.vllm.contents import TaskContent
from server.engines.vllm.fit import check_fit
from server.engines.vllm.options import Options
from server.engines.vllm.version import check_vllm
from server.engines.vllm.workers import states_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vllm import RequestOutput, SamplingParams
    from vllm.lora.request import LoRARequest

    Prompts = Sequence[str | dict[str, Any]]

_POLL_S = 0.002


class TaskLLM:
    """vLLM's `LLM` with the tasks of a store; a context manager.

    Attributes:
        llm: vLLM's own object. What it generates without a route is the base's.
        store: The store.
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        *,
        base: str | os.PathLike[str] | None = None,
        quantum_s: float = Options.quantum_s,
        **options: Any,
    ) -> None:
        """Start the engine.

        Args:
            store: The store.
            base: Directory of the base; by default where it was at compression.
            quantum_s: Seconds that one task may keep the model while another waits.
            options: Of vLLM's `LLM`.

        Raises:
            NpsError: Store, base and vLLM do not fit together (says which).
        """
        check_vllm()
        from vllm import LLM
        from vllm.platforms import current_platform

        from server.engines.vllm.plugin import register
        from server.engines.vllm.start import engine_arguments

        register()
        if not current_platform.is_cpu():  # as `vllm serve`: a forked process may wait for ever
            os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        own = Options(str(store), None if base is None else str(base), quantum_s)
        arguments = engine_arguments(own)
        if taken := sorted({*arguments, "model"} & options.keys()):
            raise BadOptionError(f"options {', '.join(taken)} are set by the engine itself")
        self._routes: dict[TaskContent, LoRARequest] = {}
        self.store = Store.open(store, base=base)
        try:
            self.llm = LLM(str(base_directory(self.store)), **arguments, **options)
        except BaseException:
            self.store.close()
            raise

    def route(self, task: str) -> LoRARequest:
        """What vLLM's own methods take as `lora_request`; the task is prepared.

        It holds until the task is replaced or removed, and this is asked again when no request is
        unfinished: what the store has no more is given up then.

        Raises:
            TaskNotFoundError: There is no such task.
            UnsupportedTaskError: vLLM cannot serve it beside the base (says why).
            TaskQuarantinedError: It is damaged.
        """
        from server.engines.vllm.routing import route_to

        self.store.refresh()
        self._release_replaced()
        content = TaskContent(task, self.store.task(task).content_hash)
        if content not in self._routes:
            check_fit(self.store, task)
            self.llm.collective_rpc("hold_task", args=content)
            self._wait_until_prepared(content)
            self._routes[content] = route_to(content)
        return self._routes[content]

    def generate(
        self,
        prompts: Prompts,
        sampling_params: SamplingParams | Sequence[SamplingParams],
        *,
        task: str | Sequence[str | None] | None = None,
    ) -> list[RequestOutput]:
        """Continue prompts; several tasks take turns.

        Args:
            prompts: As vLLM takes them.
            sampling_params: One for all, or one for each.
            task: A task for all prompts, or one for each; None is the base.
        """
        each = [task] * len(prompts) if task is None or isinstance(task, str) else list(task)
        routes = [None if name is None else self.route(name) for name in each]
        outputs: list[RequestOutput] = self.llm.generate(
            prompts, sampling_params, lora_request=routes, use_tqdm=False
        )
        return outputs

    def _release_replaced(self) -> None:
        if self.llm.llm_engine.has_unfinished_requests():
            return
        for content in list(self._routes):
            if self.store.content_hash(content.name) != content.content_hash:
                del self._routes[content]
                self.llm.collective_rpc("release_task", args=content)

    def _wait_until_prepared(self, content: TaskContent) -> None:
        while True:
            state = states_of(self.llm.collective_rpc("task_states"))[content]
            if state.error is not None:
                self.llm.collective_rpc("release_task", args=content)
                raise state.error
            if state.state != "loading":
                return
            time.sleep(_POLL_S)

    def close(self) -> None:
        """End the engine."""
        self.llm.llm_engine.engine_core.shutdown()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def base_directory(store: Store) -> Path:
    """Where vLLM loads the base from.

    Raises:
        BadOptionError: The store holds the base itself.
    """
    if not isinstance(store.base, Checkpoint):
        raise BadOptionError(
            f"{store.path}: holds its base itself, and vLLM loads a directory",
            hint="name a directory of the same base with --base",
        )
    return store.base.path
