"""How much of a task vector's magnitude bands, and of which layers, by CMA-ES (paper, section 3.2:
theta_pre + lambda * (m * tau), with the weights of equation 4 for the mask).

First lambda alone, on a grid; then a weight for every band; then one for every group of layers,
too, which scales all bands there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nps_store.recipes import BANDS, N_BANDS, Recipe, band_params
from nps_store.search.optimizer import Stopwatch, Trial, minimize

if TYPE_CHECKING:
    from collections.abc import Callable

    from nps_store.search.optimizer import Vector

GRID = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
SIGMA = 0.3
"""First standard deviation of the weights, relative to the best lambda for all."""
DIGITS = 6
"""Significant ones of a weight in the recipe, which is to be small."""


class Balance(Protocol):
    """What the search knows of the task and the base.

    Attributes:
        task: Its name.
        edges: Lower edges of all magnitude bands but the first, increasing.
    """

    task: str
    edges: tuple[float, ...]

    def loss(self, recipe: Recipe) -> float:
        """To be minimised."""


@dataclass(frozen=True)
class TransferPlan:
    """How long to search.

    Attributes:
        evaluations: Of the texts of both sides, at most, beyond the grid.
        groups: Groups of layers with weights of their own; 1 is none.
        seed: Of the search.
    """

    evaluations: int = 160
    groups: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Transferred:
    """What was found.

    Attributes:
        recipe: Of the one task, by magnitude bands.
        loss: On the search data.
        n_evaluations: That it took.
    """

    recipe: Recipe
    loss: float
    n_evaluations: int


def transfer(
    balance: Balance,
    plan: TransferPlan,
    *,
    stopwatch: Stopwatch | None = None,
    report: Callable[[float, int], None] | None = None,
) -> Transferred:
    """The best part of a task vector that is found.

    Args:
        balance: The two sides.
        plan: How long to search.
        stopwatch: Ends the search early, at the best so far.
        report: Called with the loss and the number of evaluations after each.
    """
    done = 0

    def loss(recipe: Recipe) -> float:
        nonlocal done
        done += 1
        value = balance.loss(recipe)
        if report is not None:
            report(value, done)
        return value

    def recipe(share: float, x: Vector) -> Recipe:
        bands, layers = x[:N_BANDS] * share, x[N_BANDS:]
        return banded(balance, bands, layers if len(layers) else np.ones(1))

    tried = {share: loss(recipe(share, np.ones(N_BANDS))) for share in GRID}
    share = min(tried, key=lambda each: tried[each])
    best, clock = Trial(np.ones(N_BANDS), tried[share]), stopwatch or Stopwatch()
    stages = [0] if plan.groups == 1 else [0, plan.groups]
    for n_layers in stages:
        best = minimize(
            lambda x: loss(recipe(share, x)),
            Trial(np.concatenate([best.x, np.ones(n_layers)]), best.value),
            sigma=SIGMA, seed=plan.seed, stopwatch=clock,
            max_evaluations=plan.evaluations // len(stages),
        )  # fmt: skip
    return Transferred(recipe(share, best.x), best.value, done)


def banded(balance: Balance, bands: Vector, layers: Vector) -> Recipe:
    """The recipe of a weight for every band and one for every group of layers."""
    weights = tuple(map(_rounded, layers.tolist()))
    params = band_params(balance.edges, [*map(_rounded, bands.tolist())])
    return Recipe({balance.task: weights}, BANDS, params)


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
