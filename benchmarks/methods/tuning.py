"""Searches over one number on the calibration data: the free parameters of the baselines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, TypeVar

from scipy.optimize import minimize_scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

T = TypeVar("T")
SCALES = tuple(math.exp(x / 2) for x in range(-3, 8))
"""First look at scales: 0.22 to 33."""
N_REFINEMENTS = 8
TOLERANCE = 1.03
FLOOR = 1e-3
"""A coarser encoding is taken when it costs at most 3 % of the loss, or a thousandth of the base's.
"""


class Judge(Protocol):
    """Whatever tells how good a vector is on calibration data."""

    def loss(self, delta: Tensor) -> float:
        """Of a change of the base's weights, float32 [numel]; less is better."""


def best_scale(
    problem: Judge, delta: Tensor, scales: Sequence[float] = SCALES
) -> tuple[float, float]:
    """The scale of least loss, and that loss: a coarse look, then Brent's method around it.

    Args:
        problem: Gives the loss.
        delta: float32 [numel].
        scales: What to look at first, in a geometric series.
    """
    tried = {scale: problem.loss(delta * scale) for scale in scales}
    best = min(tried, key=lambda scale: tried[scale])
    width = math.log(scales[1] / scales[0])
    found = minimize_scalar(
        lambda x: problem.loss(delta * math.exp(x)),
        bounds=(math.log(best) - width, math.log(best) + width),
        method="bounded",
        options={"maxiter": N_REFINEMENTS},
    )
    if found.fun < tried[best]:
        return math.exp(found.x), float(found.fun)
    return best, tried[best]


def least(candidates: Iterable[T], loss: Callable[[T], float]) -> tuple[T, float]:
    """The candidate of least loss, and that loss."""
    losses = [(loss(candidate), number, candidate) for number, candidate in enumerate(candidates)]
    value, _, best = min(losses, key=lambda found: found[:2])
    return best, value


def coarsest(
    candidates: Iterable[T], loss: Callable[[T], float], *, reference: float, base: float
) -> T:
    """The first candidate, from coarse to fine, that is about as good as the reference; else the
    last."""
    limit = max(TOLERANCE * reference, reference + FLOOR * base)
    candidate = None
    for candidate in candidates:
        if loss(candidate) <= limit:
            break
    if candidate is None:
        raise ValueError("no candidates")
    return candidate
