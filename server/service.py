"""The life of the service: open the engine, follow the store, close. Requests are `answering`'s."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from nps_store.errors import UnsupportedTaskError
from server.answering import Answering
from server.errors import EngineFailedError, NotReadyError
from server.residency.budget import Budget
from server.residency.table import ResidencyTable
from server.scheduling.admission import Admission
from server.scheduling.fair_queue import FairQueue
from server.scheduling.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.answering import Answer, Query
    from server.engines import Catalog, Engine
    from server.metrics import Metrics
    from server.settings import Settings
    from server.trace import RequestTrace

logger = logging.getLogger(__name__)


class Service:
    """Everything between the routes and the engine. Lives on one event loop.

    Args:
        settings: Limits, budget and times.
        engine: Not opened yet.
        metrics: Where everything is counted.

    Attributes:
        failure: Why the base cannot be served, once that is certain.
        on_ready: Called with the catalog when requests can be answered.
        on_failure: Called with `failure`; logs it unless whoever runs the service does more.
    """

    def __init__(self, settings: Settings, *, engine: Engine, metrics: Metrics) -> None:
        self._settings = settings
        self._engine = engine
        self._metrics = metrics
        self._table: ResidencyTable | None = None
        self._worker: Worker | None = None
        self._answering: Answering | None = None
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="nps-loader")
        self._lifecycle: asyncio.Task[None] | None = None
        self._complaint = ""
        self.failure: Exception | None = None
        self.on_ready: Callable[[Catalog], None] = lambda _: None
        self.on_failure: Callable[[Exception], None] = _log_failure

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Begin to load the base. Until that is done requests are refused with NotReadyError."""
        self._lifecycle = asyncio.get_running_loop().create_task(self._live())

    async def _live(self) -> None:
        try:
            await self._open()
        except Exception as error:  # noqa: BLE001 - kept, shown by /ready, and raised by `serve`
            self._fail(error)
        while self.failure is None:
            await asyncio.sleep(self._settings.refresh_s)
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001 - what is resident can still be served
                self._complain(error)
            else:
                self._complaint = ""

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.on_failure(error)

    def _complain(self, error: Exception) -> None:
        if repr(error) != self._complaint:  # once, not twice a second
            logger.error("looking for a newer store generation failed", exc_info=error)
            self._complaint = repr(error)

    async def _open(self) -> None:
        catalog = await asyncio.get_running_loop().run_in_executor(self._loader, self._engine.open)
        table = ResidencyTable(
            self._engine,
            catalog=catalog,
            budget=Budget.of(
                self._settings.memory_budget,
                base_nbytes=self._engine.base_nbytes,
                wait_s=self._settings.load_wait_s,
            ),
            executor=self._loader,
            metrics=self._metrics,
        )
        try:
            async with table.lease(None):
                pass
        except UnsupportedTaskError as error:
            logger.warning("tasks are served, the base itself is not: %s", error)
        admission = Admission(
            max_inputs=self._settings.max_queued_inputs,
            max_inputs_per_task=self._settings.max_queued_inputs_per_task,
            metrics=self._metrics,
        )
        self._worker = self._make_worker(admission, table=table)
        self._answering = Answering(
            self._engine,
            table=table,
            admission=admission,
            worker=self._worker,
            metrics=self._metrics,
            max_inputs=self._settings.max_inputs,
        )
        self._worker.start()
        self._table = table
        self.on_ready(catalog)

    def _make_worker(self, admission: Admission, *, table: ResidencyTable) -> Worker:
        loop = asyncio.get_running_loop()
        return Worker(
            self._engine,
            queue=FairQueue(
                quantum_s=self._settings.quantum_s,
                max_batch_inputs=self._settings.max_batch_inputs,
                max_batch_tokens=self._settings.max_batch_tokens,
                clock=time.monotonic,
            ),
            metrics=self._metrics,
            on_batch=lambda s, n: _call(loop, admission.observe, s, n),
            on_unusable=lambda resident, error: _call(loop, table.quarantine, resident, error),
        )

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
        if self._answering is not None:
            self._answering.close()
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
        if self._table is None or self.failure is not None:
            raise NotReadyError("; ".join(self.reasons_not_ready()))
        return self._table

    async def refresh(self) -> bool:
        """Look for a newer store generation; returns True when there was one."""
        table = self.table
        try:
            catalog = await asyncio.get_running_loop().run_in_executor(
                self._loader, self._engine.refresh
            )
        except EngineFailedError as error:
            self._fail(error)
            raise
        if catalog is None:
            return False
        table.sync(catalog)
        logger.info("store generation %d: %d tasks", catalog.generation, len(catalog.tasks))
        return True

    async def answer(self, query: Query, *, trace: RequestTrace) -> Answer:
        """Answer `query`. Raises NotReadyError until the base is loaded; see Answering for more."""
        if self._answering is None or self.failure is not None:
            raise NotReadyError("; ".join(self.reasons_not_ready()))
        return await self._answering.answer(query, trace=trace)


def _log_failure(error: Exception) -> None:
    logger.critical("the base cannot be served: %s", error)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: object) -> None:
    loop.call_soon_threadsafe(function, *args)
