"""A queue per resident task and the rule of who runs next.

Tasks take turns, round robin. A turn lasts at most a quantum, or one batch where a batch is longer,
so a task waits at most the quantum times the number of active tasks, plus one batch. A task that is
alone keeps the model. Two versions of a replaced task are two tasks here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.engines import TokenIds
    from server.residency.resident import Resident
    from server.scheduling.job import Job


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs of one task that run in one forward pass.

    Attributes:
        items: Pairs of a job and the index of one of its inputs.
    """

    resident: Resident
    items: tuple[tuple[Job, int], ...]

    @property
    def inputs(self) -> list[TokenIds]:
        """Token ids in the order of the items."""
        return [job.inputs[index] for job, index in self.items]

    @property
    def jobs(self) -> list[Job]:
        """The jobs that take part, each once."""
        return list(dict.fromkeys(job for job, _ in self.items))


class FairQueue:
    """Not thread-safe: its owner holds a lock.

    Args:
        quantum_s: Seconds that a turn may last while others wait.
        max_batch_inputs: Inputs in a batch.
        max_batch_tokens: Tokens in a batch, padding included; an input alone may exceed it.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        quantum_s: float,
        max_batch_inputs: int,
        max_batch_tokens: int,
        clock: Callable[[], float],
    ) -> None:
        self._quantum_s = quantum_s
        self._max_batch_inputs = max_batch_inputs
        self._max_batch_tokens = max_batch_tokens
        self._clock = clock
        self._queues: dict[Resident, deque[tuple[Job, int]]] = {}  # in the order of the turns
        self._turn: Resident | None = None
        self._turn_began = 0.0
        self._popped_at: float | None = None
        self._batch_s = 0.0

    def push(self, job: Job) -> None:
        """Queue every input of `job` behind those of its task."""
        queue = self._queues.setdefault(job.resident, deque())
        queue.extend((job, index) for index in range(len(job.inputs)))

    def discard(self, job: Job) -> None:
        """Remove the inputs of `job` that have not been popped."""
        queue = self._queues.get(job.resident)
        if queue is None:
            return
        kept = deque(item for item in queue if item[0] is not job)
        if kept:
            self._queues[job.resident] = kept
        else:
            del self._queues[job.resident]

    def pop(self) -> Batch | None:
        """The next batch; None when nothing waits. Called when the batch before it has ended."""
        now = self._clock()
        if self._popped_at is not None:
            self._batch_s = now - self._popped_at
            self._popped_at = None
        if not self._queues:
            return None
        if not self._turn_goes_on(now):
            self._next_turn(now)
        resident = self._turn
        if resident is None:
            return None
        self._popped_at = now
        return Batch(resident, tuple(self._take(resident)))

    def idle(self) -> None:
        """The owner is about to wait: the time until the next pop belongs to no batch or turn."""
        self._popped_at = None
        self._turn = None

    def drain(self) -> list[Job]:
        """Take out every job that still waits."""
        jobs = dict.fromkeys(job for queue in self._queues.values() for job, _ in queue)
        self._queues.clear()
        return list(jobs)

    def _turn_goes_on(self, now: float) -> bool:
        if self._turn not in self._queues:
            return False
        if len(self._queues) == 1:
            return True
        return now - self._turn_began + self._batch_s <= self._quantum_s

    def _next_turn(self, now: float) -> None:
        if self._turn in self._queues:  # back to the end of the row
            self._queues[self._turn] = self._queues.pop(self._turn)
        self._turn = next(iter(self._queues))
        self._turn_began = now

    def _take(self, resident: Resident) -> list[tuple[Job, int]]:
        queue = self._queues[resident]
        items: list[tuple[Job, int]] = []
        longest = 0
        while queue and len(items) < self._max_batch_inputs:
            job, index = queue[0]
            longest = max(longest, len(job.inputs[index]))
            if items and longest * (len(items) + 1) > self._max_batch_tokens:
                break
            items.append(queue.popleft())
        if not queue:
            del self._queues[resident]
        return items
