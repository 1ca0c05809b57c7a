"""What happens to each request on its way through vLLM's engine, as numbers and as log lines.

vLLM's routes all come together in its client's `generate`; what is put around it sees requests of
every route, with the task they are for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from server.engines.vllm.routing import route_to

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from vllm import RequestOutput
    from vllm.engine.protocol import EngineClient
    from vllm.lora.request import LoRARequest

    from server.engines.vllm.contents import TaskContent
    from server.engines.vllm.metrics import Metrics
    from server.engines.vllm.served_tasks import ServedTasks

logger = logging.getLogger("server.request")


@dataclass
class Seen:
    """One request.

    Attributes:
        request_id: vLLM's, in which a client's `X-Request-Id` is.
        task: Name of the task or of the base.
        content_hash: The task's content; None for the base.
        outcome: Why it ended: vLLM's reason, `cancelled` or `failed`.
        n_cached_tokens: Of the prompt, found in the prefix cache.
        queue_s: Until its first step; None if it had none, or vLLM keeps no statistics.
        first_token_s: From arrival.
    """

    request_id: str
    task: str
    content_hash: str | None = None
    outcome: str = "failed"
    n_prompt_tokens: int = 0
    n_cached_tokens: int = 0
    n_generated_tokens: int = 0
    queue_s: float | None = None
    first_token_s: float | None = None
    duration_s: float = 0.0

    def note(self, output: RequestOutput) -> None:
        """Take in what the engine gave; every output has tokens of its own."""
        self.n_prompt_tokens = len(output.prompt_token_ids or ())
        self.n_cached_tokens = output.num_cached_tokens or 0
        for choice in output.outputs:
            self.n_generated_tokens += len(choice.token_ids)
            self.outcome = choice.finish_reason or self.outcome
        if output.metrics is not None and output.metrics.scheduled_ts:
            self.queue_s = output.metrics.scheduled_ts - output.metrics.queued_ts
            self.first_token_s = output.metrics.first_token_latency or None


class ObservedEngine:
    """An engine's `generate`, with tasks resolved at the last moment, and everything noted."""

    def __init__(self, engine: EngineClient, tasks: ServedTasks, metrics: Metrics) -> None:
        self._generate = engine.generate
        self._tasks = tasks
        self._metrics = metrics

    def generate(
        self,
        prompt: Any,  # noqa: ANN401 (vLLM's union)
        sampling_params: Any,  # noqa: ANN401
        request_id: str,
        *,
        lora_request: LoRARequest | None = None,
        **more: Any,
    ) -> AsyncGenerator[RequestOutput, None]:
        """As vLLM's.

        Raises:
            NpsError: The task is not served (says why); at once, before an answer is begun.
        """
        if lora_request is not None:
            self._tasks.check(lora_request.lora_name)
        name = None if lora_request is None else lora_request.lora_name
        return self._observed(name, prompt, sampling_params, request_id, more)

    async def _observed(
        self,
        name: str | None,
        prompt: Any,  # noqa: ANN401
        sampling_params: Any,  # noqa: ANN401
        request_id: str,
        more: dict[str, Any],
    ) -> AsyncGenerator[RequestOutput, None]:
        began = time.monotonic()
        seen = Seen(request_id, name or self._tasks.store.base_name)
        try:
            async with nullcontext() if name is None else self._tasks.request(name) as content:
                route = self._routed(content, seen)
                outputs = self._generate(
                    prompt, sampling_params, request_id, lora_request=route, **more
                )
                async for output in outputs:
                    seen.note(output)
                    yield output
        except (GeneratorExit, asyncio.CancelledError):
            seen.outcome = "cancelled"
            raise
        finally:
            seen.duration_s = time.monotonic() - began
            self._metrics.count(seen)
            logger.info("request", extra=asdict(seen))

    def _routed(self, content: TaskContent | None, seen: Seen) -> LoRARequest | None:
        if content is None:
            return None
        seen.content_hash = content.content_hash
        return route_to(content)
