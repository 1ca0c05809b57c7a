"""Back-pressure: how much work may be accepted, and when a refused client should come back."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from typing import TYPE_CHECKING

from server.errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.metrics import Metrics

_SMOOTHING = 0.1
_MAX_RETRY_AFTER_S = 60.0


class Admission:
    """Counts the inputs of requests that are not answered yet. Event loop only.

    Args:
        max_inputs: Inputs of all tasks together.
        max_inputs_per_task: Inputs of one task.
        metrics: Where the depth is shown.
    """

    def __init__(self, *, max_inputs: int, max_inputs_per_task: int, metrics: Metrics) -> None:
        self._max_inputs = max_inputs
        self._max_inputs_per_task = max_inputs_per_task
        self._metrics = metrics
        self._n_inputs: Counter[str | None] = Counter()
        self._input_s = 0.01

    @contextlib.contextmanager
    def ticket(self, task: str | None, n_inputs: int) -> Iterator[None]:
        """Room for `n_inputs` of `task` for as long as the block runs.

        A request that finds its task's queue empty is let in whatever its size, since a limit below
        the size of one request would refuse it for ever.

        Raises:
            OverloadedError: The queue is full.
        """
        self._check(task, n_inputs)
        self._n_inputs[task] += n_inputs
        self._metrics.queue_depth.inc(n_inputs)
        try:
            yield
        finally:
            self._metrics.queue_depth.dec(n_inputs)
            self._n_inputs[task] -= n_inputs
            if not self._n_inputs[task]:
                del self._n_inputs[task]

    def observe(self, seconds: float, n_inputs: int) -> None:
        """Learn the pace of the model from one batch."""
        self._input_s += _SMOOTHING * (seconds / n_inputs - self._input_s)

    def _check(self, task: str | None, n_inputs: int) -> None:
        total = self._n_inputs.total()
        mine = self._n_inputs[task]
        if (mine and mine + n_inputs > self._max_inputs_per_task) or (
            total and total + n_inputs > self._max_inputs
        ):
            wait_s = min(max(1.0, math.ceil(total * self._input_s)), _MAX_RETRY_AFTER_S)
            raise OverloadedError(
                f"the queue is full ({mine} inputs of this model and {total} of all are waiting); "
                f"try again in {wait_s:.0f} s",
                retry_after_s=wait_s,
            )
