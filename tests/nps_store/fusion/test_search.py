"""The search of merge weights against known optima."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch

from nps_store.errors import NonFiniteObjectiveError
from nps_store.fusion import FusionPlan, fuse
from nps_store.fusion.search import GRID, ROUNDED
from nps_store.search import Stopwatch


class Bowl:
    """The best weights are known."""

    def __init__(self, optimum):
        self.members = tuple("abc")
        self.optimum = np.array(optimum)
        self.seen = []

    def loss(self, recipe):
        weights = [recipe.members[name] for name in self.members]
        x = np.array([np.broadcast_to(w, self.optimum.shape[1:]) for w in weights])
        self.seen.append(recipe)
        return float(((x - self.optimum) ** 2).sum())

    def learner(self, n_groups):
        optimum = torch.tensor(self.optimum, dtype=torch.float32).expand(-1, n_groups)

        def learn(weights):
            return float((weights - optimum).square().sum()), 2 * (weights - optimum)

        return learn


def test_finds_a_weight_for_each_member():
    bowl = Bowl([[0.2], [0.5], [-0.1]])
    fused = fuse(bowl, FusionPlan(steps=0, evaluations=300, groups=1))
    found = np.array([fused.recipe.members[name] for name in "abc"])
    np.testing.assert_allclose(found, bowl.optimum, atol=0.02)
    assert fused.loss == bowl.loss(fused.recipe)
    assert fused.n_evaluations == len(bowl.seen) - 1 <= 300 + len(GRID)


def test_finds_a_weight_for_each_group_of_layers():
    bowl = Bowl([[0.2, 0.4], [0.5, 0.1], [0.3, 0.3]])
    fused = fuse(bowl, FusionPlan(steps=0, evaluations=1200, groups=2))
    assert fused.recipe.n_groups == 2
    found = np.array([fused.recipe.members[name] for name in "abc"])
    np.testing.assert_allclose(found, bowl.optimum, atol=0.03)


def test_is_no_worse_than_the_best_common_weight():
    bowl = Bowl([[0.3], [0.3], [0.3]])
    assert fuse(bowl, FusionPlan(steps=0, evaluations=0, groups=1)).loss == 0.0


def test_equal_seeds_give_equal_results():
    plan = FusionPlan(steps=0, evaluations=60, groups=1)
    one, other = (fuse(Bowl([[0.2], [0.5], [0.1]]), plan) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("n_groups", [1, 3])
def test_learns_a_weight_for_each_member_and_group(n_groups):
    optimum = np.random.default_rng(0).normal(0.3, 0.4, (3, n_groups))
    steps = []
    plan = FusionPlan(groups=n_groups)
    fused = fuse(Bowl(optimum), plan, on_step=lambda *told: steps.append(told))
    found = np.array([fused.recipe.members[name] for name in "abc"])
    np.testing.assert_allclose(found, optimum, atol=ROUNDED)
    np.testing.assert_array_equal(found, np.round(found, 2))
    np.testing.assert_allclose(found / ROUNDED, np.round(found / ROUNDED))
    assert [count for _, count in steps] == list(range(1, plan.steps + 1))
    assert steps[-1][0] < 0.01 * steps[0][0]


def test_what_was_learned_is_kept_only_where_it_helps():
    bowl = Bowl([[0.3], [0.3], [0.3]])
    bowl.learner = lambda _: lambda weights: (0.0, weights - 9)
    fused = fuse(bowl, FusionPlan(groups=1))
    assert fused.loss == 0.0
    assert {*fused.recipe.members.values()} == {(0.3,)}


def test_a_learners_loss_that_is_no_number_is_refused():
    bowl = Bowl([[0.3], [0.3], [0.3]])
    bowl.learner = lambda _: lambda weights: (math.nan, weights)
    with pytest.raises(NonFiniteObjectiveError, match="step 1 "):
        fuse(bowl, FusionPlan(groups=1))


def test_the_stopwatch_ends_learning():
    bowl = Bowl([[0.2], [0.5], [0.1]])
    quick = bowl.learner(1)
    bowl.learner = lambda _: lambda weights: (time.sleep(0.02), quick(weights))[1]
    began = time.monotonic()
    fused = fuse(bowl, FusionPlan(steps=10_000, groups=1), stopwatch=Stopwatch(0.3))
    assert time.monotonic() - began < 1.5
    assert fused.loss < fuse(bowl, FusionPlan(steps=0, evaluations=0, groups=1)).loss
