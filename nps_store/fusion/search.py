"""The weights of a merge, by CMA-ES (paper, section 3.3: lambda of every task vector).

First one weight for all members, on a grid; then one for each; then one for each and every group of
layers. The paper divides by the sum of the weights and keeps an overall scale: that is the same set
of merges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nps_store.recipes import Recipe
from nps_store.search.optimizer import Stopwatch, Trial, minimize

if TYPE_CHECKING:
    from collections.abc import Callable

    from nps_store.search.optimizer import Vector

GRID = (0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0)
SIGMA = 0.3
"""First standard deviation of the weights, as a share of the one that is best for all."""


class Merge(Protocol):
    """What the search knows of the tasks.

    Attributes:
        members: Their names.
    """

    members: tuple[str, ...]

    def loss(self, recipe: Recipe) -> float:
        """To be minimised."""


@dataclass(frozen=True)
class FusionPlan:
    """How long to search.

    Attributes:
        evaluations: Of all members' texts, at most, beyond the grid.
        groups: Groups of layers with weights of their own; 1 is one weight a member.
        seed: Of the search.
    """

    evaluations: int = 240
    groups: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Fused:
    """What was found.

    Attributes:
        recipe: Linear.
        loss: On the search data.
        n_evaluations: That it took.
    """

    recipe: Recipe
    loss: float
    n_evaluations: int


def fuse(
    merge: Merge,
    plan: FusionPlan,
    *,
    stopwatch: Stopwatch | None = None,
    report: Callable[[float, int], None] | None = None,
) -> Fused:
    """The best linear merge that is found.

    Args:
        merge: The tasks.
        plan: How long to search.
        stopwatch: Ends the search early, at the best so far.
        report: Called with the loss and the number of evaluations after each.
    """
    members, done = merge.members, 0

    def loss(x: Vector) -> float:
        nonlocal done
        done += 1
        value = merge.loss(_recipe(members, x))
        if report is not None:
            report(value, done)
        return value

    clock = stopwatch or Stopwatch()
    for_all = (np.full(len(members), weight) for weight in GRID)
    best = min((Trial(x, loss(x)) for x in for_all), key=lambda trial: trial.value)
    sigma = SIGMA * abs(float(best.x[0]))
    stages = [1] if plan.groups == 1 else [1, plan.groups]
    for n_groups in stages:
        start = Trial(np.repeat(best.x, n_groups), best.value)
        best = minimize(
            loss, start, sigma=sigma, seed=plan.seed, stopwatch=clock,
            max_evaluations=plan.evaluations // len(stages),
        )  # fmt: skip
    return Fused(_recipe(members, best.x), best.value, done)


def _recipe(members: tuple[str, ...], x: Vector) -> Recipe:
    weights = x.reshape(len(members), -1).tolist()
    return Recipe({name: tuple(each) for name, each in zip(members, weights, strict=True)})
