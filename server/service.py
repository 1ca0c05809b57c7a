"""The life of the service, and of a request through it: admit, lease, encode, queue, answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from formats.errors import NpsError
from server.errors import BadRequestError, EngineFailedError, NotReadyError, WrongRouteError
from server.metrics import UNKNOWN_TASK, Metrics
from server.residency.budget import Budget
from server.residency.resident import Resident, State
from server.residency.table import ResidencyTable
from server.scheduling.admission import Admission
from server.scheduling.fair_queue import FairQueue
from server.scheduling.job import Job, Rows
from server.scheduling.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from server.engines import Catalog, Engine, Kind, TokenIds
    from server.settings import Settings
    from server.trace import RequestTrace

logger = logging.getLogger(__name__)

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
    inputs: Sequence[str] | Sequence[TokenIds]
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows [n_inputs, width] float32 of one version of one task."""

    model: str
    rows: Rows
    labels: Sequence[str]
    n_tokens: int


class Service:
    """Everything between the routes and the engine. Lives on one event loop.

    Args:
        settings: Limits, budget and times.
        engine: Not opened yet.
        metrics: Where everything is counted.
    """

    def __init__(self, settings: Settings, *, engine: Engine, metrics: Metrics) -> None:
        self._settings = settings
        self._engine = engine
        self._metrics = metrics
        self._table: ResidencyTable | None = None
        self._worker: Worker | None = None
        self._tokenizer = ThreadPoolExecutor(1, thread_name_prefix="nps-tokenizer")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="nps-loader")
        self._lifecycle: asyncio.Task[None] | None = None
        self._admission = Admission(
            max_inputs=settings.max_queued_inputs,
            max_inputs_per_task=settings.max_queued_inputs_per_task,
            metrics=metrics,
        )
        self.failure: Exception | None = None
        self.on_ready: Callable[[Catalog], None] = lambda _: None
        self.on_failure: Callable[[Exception], None] = lambda _: None

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Begin to load the base. Until that is done requests are refused with NotReadyError."""
        self._lifecycle = asyncio.get_running_loop().create_task(self._live())

    async def _live(self) -> None:
        try:
            await self._open()
        except Exception as error:  # noqa: BLE001 - kept, shown by /ready, and raised by `serve`
            logger.critical("the base cannot be served: %s", error)
            self.failure = error
            self.on_failure(error)
            return
        while True:
            await asyncio.sleep(self._settings.refresh_s)
            try:
                await self.refresh()
            except Exception:
                logger.exception("looking for a newer store generation failed")

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        catalog = await loop.run_in_executor(self._loader, self._engine.open)
        table = ResidencyTable(
            self._engine,
            catalog=catalog,
            budget=Budget.of(
                self._settings.memory_budget,
                base_nbytes=self._engine.base_nbytes,
                wait_s=self._settings.load_wait_s,
            ),
            loader=self._loader,
            metrics=self._metrics,
        )
        self._worker = Worker(
            self._engine,
            queue=FairQueue(
                quantum_s=self._settings.quantum_s,
                max_batch_inputs=self._settings.max_batch_inputs,
                max_batch_tokens=self._settings.max_batch_tokens,
                clock=time.monotonic,
            ),
            metrics=self._metrics,
            on_batch=lambda s, n: _call(loop, self._admission.observe, s, n),
            on_unusable=lambda resident, error: _call(loop, table.quarantine, resident, error),
        )
        self._worker.start()
        async with table.lease(None):
            pass
        self._table = table
        self.on_ready(catalog)

    async def stop(self) -> None:
        """End the worker and close the engine; whoever wants requests to finish waits before."""
        if self._lifecycle is not None:
            self._lifecycle.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._lifecycle
        if self._worker is not None:
            await asyncio.to_thread(self._worker.stop)
        if self._table is not None:
            await self._table.close()
        self._tokenizer.shutdown(cancel_futures=True)
        self._loader.shutdown(cancel_futures=True)
        self._engine.close()

    # ------------------------------------------------------------------ state

    def reasons_not_ready(self) -> list[str]:
        """Why requests would be refused now; empty when ready."""
        if self.failure is not None:
            return [f"the base cannot be served: {self.failure}"]
        if self._table is None:
            return ["the base is being loaded and identified"]
        if self._worker is not None and self._worker.broken is not None:
            return [f"the engine is not to be trusted: {self._worker.broken}"]
        return []

    @property
    def table(self) -> ResidencyTable:
        """The resident tasks. Raises NotReadyError until the base is loaded."""
        if self._table is None:
            raise NotReadyError("; ".join(self.reasons_not_ready()))
        return self._table

    async def refresh(self) -> bool:
        """Look for a newer store generation; returns True when there was one."""
        table = self.table
        catalog = await asyncio.get_running_loop().run_in_executor(
            self._loader, self._engine.refresh
        )
        if catalog is None:
            return False
        table.sync(catalog)
        logger.info("store generation %d: %d tasks", catalog.generation, len(catalog.tasks))
        return True

    # ------------------------------------------------------------------ one request

    async def answer(self, query: Query, *, trace: RequestTrace) -> Answer:
        """Answer `query` with the version of the task that is current when it arrives.

        Raises:
            NpsError: See `server.errors`; nothing of the request is left behind.
        """
        table = self.table
        trace.task = UNKNOWN_TASK
        task = table.resolve(query.model)
        trace.task = table.catalog.model_name(task)
        trace.n_inputs = len(query.inputs)
        if len(query.inputs) > self._settings.max_inputs:
            raise BadRequestError(
                f"one request may hold {self._settings.max_inputs} inputs, got {len(query.inputs)}",
                param="input",
            )
        with self._admission.ticket(task, len(query.inputs)):
            trace.is_hit = table.state(task) is State.READY
            async with table.lease(task) as resident:
                trace.generation = table.catalog.generation
                trace.content_hash = resident.content_hash
                return await self._answer_with(resident, query, trace=trace)

    async def _answer_with(
        self, resident: Resident, query: Query, *, trace: RequestTrace
    ) -> Answer:
        name = self.table.catalog.model_name(resident.task)
        prepared = resident.prepared
        if prepared.kind != query.kind:
            raise WrongRouteError(
                f"the model {name!r} does not answer {ROUTE_OF_KIND[query.kind]}; "
                f"use {ROUTE_OF_KIND[prepared.kind]}"
            )
        token_ids = await asyncio.get_running_loop().run_in_executor(
            self._tokenizer, self._token_ids, resident, query
        )
        trace.n_tokens = sum(map(len, token_ids))
        self._metrics.tokens.labels(task=name).inc(trace.n_tokens)
        job = Job(resident, token_ids)
        try:
            rows = await self._run(job)
        finally:
            trace.queue_s, trace.switch_s = job.queue_s, job.switch_s
        self._metrics.queue_seconds.observe(job.queue_s)
        return Answer(name, rows, prepared.labels, trace.n_tokens)

    def _token_ids(self, resident: Resident, query: Query) -> list[TokenIds]:
        texts = [item for item in query.inputs if isinstance(item, str)]
        if texts:
            try:
                return self._engine.encode(resident.prepared, texts, max_tokens=query.max_tokens)
            except NpsError:
                raise
            except Exception as error:
                raise EngineFailedError(f"the tokenizer failed: {error!r}") from error
        token_ids = [list(item) for item in query.inputs if not isinstance(item, str)]
        self._engine.check_token_ids(resident.prepared, token_ids)
        return token_ids

    async def _run(self, job: Job) -> Rows:
        worker = self._worker
        if worker is None:
            raise NotReadyError("the engine is not running")
        worker.submit(job)
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            worker.discard(job)
            raise


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: object) -> None:
    loop.call_soon_threadsafe(function, *args)
