"""The work of one request: its inputs, the version of the task that answers, and the outcome."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.engines import PreparedTask, TokenIds
    from server.residency.resident import Resident

Rows = NDArray[np.float32]


@dataclass(eq=False, slots=True)
class Job:
    """Inputs that one request brought, answered together once all of them have run.

    Attributes:
        resident: The version of the task that the request holds a lease on; jobs of one version
            may share a batch.
        prepared: What the engine runs. Held here as well, since a client that goes gives its lease
            back while its batch may be about to start.
        inputs: Token ids of each input.
        future: Resolves to the answers [n_inputs, width], float32.
        enqueued_at: When the job was handed to the scheduler, in seconds of its clock.
        started_at: When its first batch started; None while it waits.
        switch_s: Seconds of weight switching before the batches it took part in.
    """

    resident: Resident
    prepared: PreparedTask
    inputs: Sequence[TokenIds]
    future: Future[Rows] = field(default_factory=Future)
    enqueued_at: float = 0.0
    started_at: float | None = None
    switch_s: float = 0.0
    _rows: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def queue_s(self) -> float:
        """Seconds from the queue to the first batch; 0 if it never ran."""
        return 0.0 if self.started_at is None else self.started_at - self.enqueued_at

    def start(self, now: float) -> bool:
        """Mark the first batch. Returns False when the client has gone: the work is dropped."""
        if self.future.done():
            return False
        if self.started_at is None:
            if not self.future.set_running_or_notify_cancel():
                return False
            self.started_at = now
        return True

    def deliver(self, index: int, row: NDArray[np.float32]) -> None:
        """Store one input's answer; the last one resolves the future."""
        self._rows[index] = row
        if len(self._rows) == len(self.inputs) and not self.future.done():
            self.future.set_result(np.stack([self._rows[i] for i in range(len(self.inputs))]))

    def fail(self, error: Exception) -> None:
        """Fail the whole request; nothing happens when the client has gone."""
        if self.future.done():
            return
        if self.started_at is not None or self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)
