"""The search selects what it is known to select, and finds an optimum that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from xxhash import xxh3_128

from nps_store.search import RULES, Candidate
from nps_store.search.optimizer import Trial, Vector, minimize
from nps_store.search.pool import collect
from nps_store.search.selection import Selector

if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT = "75ccfbd6b085cbed7d06552aa0d67e3a"
"""xxh3-128 of the positions that are kept of the known task vector."""
N_KEPT, NUMEL = 700, 70_000
OPTIMUM = np.array([0.5, -1.0, 2.0])
CLOSE = 1e-3


def selection_is_known() -> str:
    """Of integers hashed into random numbers, and magnitudes that floats hold exactly."""
    pool = collect(_task_vector, rule=RULES["nps"], max_keep=lambda _: 4 * N_KEPT, seed="known")
    candidate = Candidate((0.0, 0.25, 0.5, 0.75, 1.0, 1.25)).centred()
    kept = Selector(pool).select(candidate, keep=N_KEPT)
    found = xxh3_128(kept.positions.numpy().astype("<i8").tobytes()).hexdigest()
    if found != KEPT:
        raise AssertionError(f"{kept.n_kept} elements: expected {KEPT}, got {found}")
    return f"{kept.n_kept} of {NUMEL} elements"


def optimum_is_found() -> str:
    """By CMA-ES, on a bowl."""

    def bowl(x: Vector) -> float:
        return float(((x - OPTIMUM) ** 2 * (1, 4, 9)).sum())

    start = Trial(np.zeros(3), bowl(np.zeros(3)))
    first, again = (minimize(bowl, start, sigma=0.5, seed=7, max_evaluations=400) for _ in range(2))
    if not np.array_equal(first.x, again.x):
        raise AssertionError("the same search gave two results")
    if first.value > CLOSE:
        raise AssertionError(f"expected {OPTIMUM.tolist()}, got {first.x.tolist()}")
    return f"within {np.abs(first.x - OPTIMUM).max():.0e}, twice the same"


def _task_vector() -> Iterator[tuple[str, torch.Tensor]]:
    steps = torch.arange(NUMEL)
    yield "weight", ((steps * 37) % 2003 - 1001).float() / 1024
