"""The paper's order of steps: search the band weights on the whole vector, prune after.

Bands are of equal count and M is 10; neither is published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.methods.trim import top
from nps_store.search.optimizer import Trial, Vector, minimize

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

N_BANDS = 10
SIGMA = 0.3


def solve(
    delta: Tensor,
    keep: float,
    loss: Callable[[Tensor], float],
    *,
    seed: int,
    evaluations: int,
) -> Tensor:
    """The fraction `keep` of largest |w tau|, float32 [n] with zeros elsewhere.

    Args:
        delta: float32 [n], the task vector.
        keep: Kept fraction.
        loss: Of an unpruned, re-weighted vector.
        seed: Of the search.
        evaluations: Calls of `loss`, at most.
    """
    bands = equal_count_bands(delta, N_BANDS)

    def weighted(x: Vector) -> Tensor:
        weights = torch.from_numpy(x).to(delta)
        return delta * weights[bands]

    start = np.ones(N_BANDS)
    found = minimize(
        lambda x: loss(weighted(x)),
        Trial(start, loss(weighted(start))),
        sigma=SIGMA,
        seed=seed,
        max_evaluations=evaluations,
    )
    return top(weighted(found.x), keep)


def equal_count_bands(delta: Tensor, n_bands: int) -> Tensor:
    """int64 [n], the band of every element; 0 is the band of smallest magnitudes."""
    rank = torch.empty(len(delta), dtype=torch.int64, device=delta.device)
    rank[delta.abs().argsort()] = torch.arange(len(delta), device=delta.device)
    return rank * n_bands // len(delta)
