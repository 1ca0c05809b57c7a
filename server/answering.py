"""One request on its way: resolve the task, admit, lease, encode, queue, answer."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from formats.errors import NpsError
from server.errors import BadRequestError, EngineFailedError, WrongRouteError
from server.metrics import UNKNOWN_TASK
from server.residency.resident import State
from server.scheduling.job import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.engines import Engine, Kind, PreparedTask, TokenIds
    from server.metrics import Metrics
    from server.residency.resident import Resident
    from server.residency.table import ResidencyTable
    from server.scheduling.admission import Admission
    from server.scheduling.job import Rows
    from server.scheduling.worker import Worker
    from server.trace import RequestTrace

ROUTE_OF_KIND: dict[Kind, str] = {"classify": "/classify", "embed": "/v1/embeddings"}


@dataclass(frozen=True, slots=True)
class Query:
    """One request for answers, whatever route it came by.

    Attributes:
        model: The base, a task, or None for the base.
        kind: What the route computes.
        inputs: Texts, or token ids.
        max_tokens: Truncate texts to this many tokens; None is the model's own limit.
    """

    model: str | None
    kind: Kind
    inputs: list[str] | list[TokenIds]
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows [n_inputs, width] float32 of one version of one task."""

    model: str
    rows: Rows
    labels: Sequence[str]
    n_tokens: int


class Answering:
    """The path of a request, over parts that the service made. Event loop only.

    Args:
        engine: Encodes texts, on a thread of this object's own.
        table: Lends the task's version.
        admission: Refuses what is too much.
        worker: Runs the inputs.
        metrics: Where tokens and waiting are counted.
        max_inputs: Inputs of one request.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        table: ResidencyTable,
        admission: Admission,
        worker: Worker,
        metrics: Metrics,
        max_inputs: int,
    ) -> None:
        self._engine = engine
        self._table = table
        self._admission = admission
        self._worker = worker
        self._metrics = metrics
        self._max_inputs = max_inputs
        # One thread: a fast tokenizer may not truncate for two callers at once.
        self._tokenizer = ThreadPoolExecutor(1, thread_name_prefix="nps-tokenizer")

    def close(self) -> None:
        """End the tokenizer's thread."""
        self._tokenizer.shutdown(cancel_futures=True)

    async def answer(self, query: Query, *, trace: RequestTrace) -> Answer:
        """Answer `query` with the version of its task that is current when it arrives.

        Raises:
            NpsError: See `server.errors`; nothing of the request is left behind.
        """
        table = self._table
        trace.task = UNKNOWN_TASK
        task = table.resolve(query.model)
        trace.task = table.catalog.model_name(task)
        trace.n_inputs = len(query.inputs)
        if len(query.inputs) > self._max_inputs:
            raise BadRequestError(
                f"one request may hold {self._max_inputs} inputs, got {len(query.inputs)}",
                param="input",
            )
        with self._admission.ticket(task, len(query.inputs)):
            trace.cache = "hit" if table.state(task) is State.READY else "miss"
            async with table.lease(task) as resident:
                trace.generation = table.catalog.generation
                trace.content_hash = resident.content_hash
                return await self._answer_with(resident, query, trace=trace)

    async def _answer_with(
        self, resident: Resident, query: Query, *, trace: RequestTrace
    ) -> Answer:
        name = self._table.catalog.model_name(resident.task)
        prepared = resident.prepared
        if prepared.kind != query.kind:
            raise WrongRouteError(
                f"the model {name!r} does not answer {ROUTE_OF_KIND[query.kind]}; "
                f"use {ROUTE_OF_KIND[prepared.kind]}"
            )
        token_ids = await asyncio.get_running_loop().run_in_executor(
            self._tokenizer, self._token_ids, prepared, query
        )
        trace.n_tokens = sum(map(len, token_ids))
        self._metrics.tokens.labels(task=name).inc(trace.n_tokens)
        job = Job(resident, prepared, token_ids)
        try:
            rows = await self._run(job)
        finally:
            trace.queue_s, trace.switch_s = job.queue_s, job.switch_s
        self._metrics.queue_seconds.observe(job.queue_s)
        return Answer(name, rows, prepared.labels, trace.n_tokens)

    def _token_ids(self, prepared: PreparedTask, query: Query) -> list[TokenIds]:
        texts = [item for item in query.inputs if isinstance(item, str)]
        if texts:
            try:
                return self._engine.encode(prepared, texts, max_tokens=query.max_tokens)
            except NpsError:
                raise
            except Exception as error:
                raise EngineFailedError(f"the tokenizer failed: {error!r}") from error
        token_ids = [item for item in query.inputs if not isinstance(item, str)]
        self._engine.check_token_ids(prepared, token_ids)
        return token_ids

    async def _run(self, job: Job) -> Rows:
        self._worker.submit(job)
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            self._worker.discard(job)
            raise
