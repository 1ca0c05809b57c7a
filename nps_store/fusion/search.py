"""The weights of a merge: lambda of every task vector (paper, section 3.3).

First one weight for all members, on a grid. From there gradients learn one for each member and
group of tensors; or CMA-ES, as in the paper, searches one for each member, then one for each and
every group. The paper divides by the sum of the weights and keeps an overall scale: that is the
same set of merges.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from nps_store.errors import NonFiniteObjectiveError
from nps_store.recipes import MAX_GROUPS, Recipe
from nps_store.search.optimizer import Stopwatch, Trial, minimize

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from nps_store.search.optimizer import Vector

GRID = (0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0)
SIGMA = 0.3
"""First standard deviation of the weights, as a share of the one that is best for all."""
RATE = 0.03
"""Learning rate of the weights at the first step; it falls to none."""
ROUNDED = 0.05
"""Learned weights are multiples of this: they are uncertain by more, and short to store."""


class Learner(Protocol):
    """A merge that can be differentiated, on data of its own."""

    def __call__(self, weights: Tensor) -> tuple[float, Tensor]:
        """Loss on the next few texts of every member under float32 [members, groups] weights, and
        its gradient, likewise."""


class Merge(Protocol):
    """What the search knows of the tasks.

    Attributes:
        members: Their names.
    """

    members: tuple[str, ...]

    def loss(self, recipe: Recipe) -> float:
        """To be minimised."""

    def learner(self, n_groups: int) -> Learner:
        """To learn weights of so many groups."""


@dataclass(frozen=True)
class FusionPlan:
    """How long to search.

    Attributes:
        steps: Of learning by gradients; 0 leaves it to CMA-ES.
        evaluations: By CMA-ES, of all members' texts, at most.
        groups: Groups of tensors with weights of their own; 1 is one weight a member.
        seed: Of search and lessons.
    """

    steps: int = 150
    evaluations: int = 240
    groups: int = MAX_GROUPS
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
    on_step: Callable[[float, int], None] | None = None,
) -> Fused:
    """The best linear merge that is found.

    Args:
        merge: The tasks.
        plan: How long to search.
        stopwatch: Ends the search early, at the best so far.
        report: Called with the loss and the number of evaluations after each.
        on_step: Called with the learner's loss and the number of steps after each.

    Raises:
        NonFiniteObjectiveError: A loss is NaN or Inf.
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
    if plan.steps:
        x = _learned(merge, np.repeat(best.x, plan.groups), plan, clock, on_step)
        best = min(Trial(x, loss(x)), best, key=lambda trial: trial.value)
        return Fused(_recipe(members, best.x), best.value, done)
    sigma = SIGMA * abs(float(best.x[0]))
    stages = [1] if plan.groups == 1 else [1, plan.groups]
    for n_groups in stages:
        start = Trial(np.repeat(best.x, n_groups), best.value)
        best = minimize(
            loss, start, sigma=sigma, seed=plan.seed, stopwatch=clock,
            max_evaluations=plan.evaluations // len(stages),
        )  # fmt: skip
    return Fused(_recipe(members, best.x), best.value, done)


def _learned(
    merge: Merge,
    start: Vector,
    plan: FusionPlan,
    clock: Stopwatch,
    on_step: Callable[[float, int], None] | None,
) -> Vector:
    """The weights after `plan.steps` steps of Adam."""
    rows = torch.tensor(start, dtype=torch.float32).reshape(len(merge.members), -1)
    weights = torch.nn.Parameter(rows)
    adam = torch.optim.Adam([weights], lr=RATE, betas=(0.9, 0.99))
    slowed = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, total_iters=plan.steps)
    learner = merge.learner(plan.groups)
    for step in range(1, plan.steps + 1):
        if clock.over:
            break
        loss, weights.grad = learner(weights.detach())
        if not isfinite(loss):
            raise NonFiniteObjectiveError(
                f"the loss is {loss} in step {step} of learning the weights; expected a finite "
                "number, so check the calibration data and the members"
            )
        adam.step()
        slowed.step()
        if on_step is not None:
            on_step(loss, step)
    x = weights.detach().double().flatten().numpy()
    return np.round(np.round(x / ROUNDED) * ROUNDED, 2) + 0.0  # no -0.0


def _recipe(members: tuple[str, ...], x: Vector) -> Recipe:
    weights = x.reshape(len(members), -1).tolist()
    return Recipe({name: tuple(each) for name, each in zip(members, weights, strict=True)})
