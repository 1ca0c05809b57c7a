"""CMA-ES (Hansen, 2016) through the package `cma`, made deterministic and strict."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nps_store.errors import NonFiniteObjectiveError

if TYPE_CHECKING:
    from collections.abc import Callable

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """One evaluated vector."""

    x: Vector
    value: float


class Stopwatch:
    """A wall-clock budget that may be unlimited."""

    def __init__(self, seconds: float | None = None) -> None:
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Seconds left; infinite without a budget."""
        return self._end - time.monotonic()

    @property
    def over(self) -> bool:
        """Whether the budget is spent."""
        return self.left_s <= 0


def minimize(
    objective: Callable[[Vector], float],
    start: Trial,
    *,
    sigma: float,
    seed: int,
    max_evaluations: int,
    good_enough: float = -math.inf,
    stopwatch: Stopwatch | None = None,
) -> Trial:
    """The best vector that CMA-ES finds from an evaluated start, or the start itself.

    Equal arguments give equal results: the random numbers are this call's own, and the global state
    of numpy is not touched. (The package's own `seed=0` means the time of day.)

    Args:
        objective: To be minimised.
        start: First mean.
        sigma: First standard deviation in every direction.
        seed: Of the random numbers.
        max_evaluations: Calls of `objective` at most.
        good_enough: Stop once a value is at most this.
        stopwatch: Stop once it is over.

    Raises:
        NonFiniteObjectiveError: The objective returned NaN or Inf, which CMA-ES would accept.
    """
    rng = np.random.default_rng(seed)
    clock = stopwatch or Stopwatch()
    strategy = _strategy(start.x, sigma, rng)
    best = start
    used = 0
    while used + strategy.popsize <= max_evaluations and not strategy.stop():
        vectors = strategy.ask()
        values: list[float] = []
        for vector in vectors:
            if clock.over:
                return best
            value = float(objective(np.asarray(vector)))
            if not math.isfinite(value):
                raise NonFiniteObjectiveError(
                    f"the objective returned {value} in evaluation {used + len(values) + 1}; "
                    "expected a finite number, so check the calibration data and the fine-tune"
                )
            values.append(value)
            if value < best.value:
                best = Trial(np.asarray(vector), value)
            if best.value <= good_enough:
                return best
        strategy.tell(vectors, values)
        used += len(values)
    return best


def _strategy(start: Vector, sigma: float, rng: np.random.Generator):  # type: ignore[no-untyped-def]  # noqa: ANN202
    with warnings.catch_warnings():
        # It warns of a missing matplotlib and of the very option that keeps it off the disk.
        warnings.simplefilter("ignore")
        import cma

        return cma.CMAEvolutionStrategy(
            start,
            sigma,
            {
                "seed": np.nan,
                "randn": lambda *shape: rng.standard_normal(shape),
                "verbose": -9,
                "verb_log": 0,
                "signals_filename": None,
            },
        )
