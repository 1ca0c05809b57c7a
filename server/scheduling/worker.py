"""The one thread that owns the weights: it takes a batch, puts its task in place and runs it."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from formats.errors import NpsError
from server.errors import EngineFailedError, NotReadyError
from server.scheduling.fair_queue import Batch, FairQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.engines import Engine
    from server.metrics import Metrics
    from server.residency.resident import Resident
    from server.scheduling.job import Job, Rows

logger = logging.getLogger(__name__)


class Worker:
    """Runs jobs in the order of a fair queue. `submit` and `discard` may be called from any thread.

    Args:
        engine: Switches and computes; no other thread touches its weights.
        queue: Who is next.
        metrics: Where switches and batches are counted.
        on_batch: Called on the worker thread with the seconds and inputs of each finished batch.
        on_unusable: Called on the worker thread with a task that cannot be put in place, and why.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        queue: FairQueue,
        metrics: Metrics,
        on_batch: Callable[[float, int], None],
        on_unusable: Callable[[Resident, Exception], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._queue = queue
        self._metrics = metrics
        self._on_batch = on_batch
        self._on_unusable = on_unusable
        self._clock = clock
        self._wakeup = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="nps-worker", daemon=True)
        self.broken: str | None = None  # why the weights can no longer be trusted

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the batch that runs, fail what still waits, and end the thread."""
        with self._wakeup:
            self._stopping = True
            self._wakeup.notify()
        if self._thread.is_alive():
            self._thread.join()
        self._refuse_waiting(NotReadyError("the server is shutting down"))

    def submit(self, job: Job) -> None:
        """Queue a job. Raises NotReadyError when the worker takes none."""
        with self._wakeup:
            if self.broken is not None:
                raise NotReadyError(f"the engine is not to be trusted: {self.broken}")
            if self._stopping:
                raise NotReadyError("the server is shutting down")
            job.enqueued_at = self._clock()
            self._queue.push(job)
            self._wakeup.notify()

    def discard(self, job: Job) -> None:
        """Drop the inputs of a job whose client has gone, as far as they have not started."""
        with self._wakeup:
            self._queue.discard(job)

    def _loop(self) -> None:
        while (batch := self._next()) is not None:
            try:
                self._execute(batch)
            except Exception as error:
                # Not the engine's failure, which is dealt with below, but one of this class: better
                # out of service than a thread that is silently gone.
                logger.exception("the worker failed")
                self._break(f"the worker failed: {error!r}")
                for job in batch.jobs:
                    job.fail(EngineFailedError(f"the worker failed: {error!r}"))

    def _next(self) -> Batch | None:
        with self._wakeup:
            while not self._stopping:
                if self.broken is None and (batch := self._queue.pop()) is not None:
                    return batch
                self._queue.idle()
                self._wakeup.wait()
        return None

    def _execute(self, batch: Batch) -> None:
        now = self._clock()
        alive = {job for job in batch.jobs if job.start(now)}
        batch = Batch(batch.resident, tuple(item for item in batch.items if item[0] in alive))
        if not batch.items:
            return
        prepared = batch.items[0][0].prepared
        try:
            switch_s = self._engine.switch_(prepared)
        except Exception as error:  # noqa: BLE001 - ends the task, not the server
            self._on_unusable(batch.resident, error)  # before any client can ask again
            self._fail(batch, error)
            return
        try:
            rows = _checked(self._engine.run(prepared, batch.inputs), n_inputs=len(batch.items))
        except Exception as error:  # noqa: BLE001 - ends the batch, not the server
            self._fail(batch, error)
            return
        if switch_s:
            self._metrics.swap_seconds.observe(switch_s)
        for job in alive:
            job.switch_s += switch_s
        for (job, index), row in zip(batch.items, rows, strict=True):
            job.deliver(index, row)
        self._metrics.batch_inputs.observe(len(batch.items))
        self._on_batch(self._clock() - now, len(batch.items))

    def _fail(self, batch: Batch, error: Exception) -> None:
        """Fail the batch's requests, then prove that the weights are the base's before going on."""
        logger.error("a batch of task %r failed", batch.resident.task, exc_info=error)
        self._metrics.engine_failures.inc()
        answer = (
            error if isinstance(error, NpsError) else EngineFailedError(f"batch failed: {error!r}")
        )
        for job in batch.jobs:
            self.discard(job)
            job.fail(answer)
        try:
            consistent = self._engine.recover_()
        except Exception as failure:  # noqa: BLE001 - the proof failed, which is the answer
            self._break(f"reverting to the base failed: {failure!r}")
        else:
            if not consistent:
                self._break("after a failed batch the base's weights are not what they were")

    def _break(self, reason: str) -> None:
        logger.critical("the engine is out of service: %s", reason)
        with self._wakeup:
            self.broken = reason
        self._refuse_waiting(NotReadyError(f"the engine is not to be trusted: {reason}"))

    def _refuse_waiting(self, error: Exception) -> None:
        with self._wakeup:
            jobs = self._queue.drain()
        for job in jobs:
            job.fail(error)


def _checked(rows: Rows, *, n_inputs: int) -> Rows:
    """Refuse an answer of the wrong shape or with NaN, which JSON cannot carry."""
    if rows.ndim != 2 or len(rows) != n_inputs:
        raise EngineFailedError(f"expected [{n_inputs}, width], got {list(rows.shape)}")
    if not np.isfinite(rows).all():
        raise EngineFailedError("the model's output is not finite")
    return rows
