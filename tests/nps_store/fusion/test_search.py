"""The search of merge weights against known optima."""

from __future__ import annotations

import numpy as np

from nps_store.fusion import FusionPlan, fuse
from nps_store.fusion.search import GRID


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


def test_finds_a_weight_for_each_member():
    bowl = Bowl([[0.2], [0.5], [-0.1]])
    fused = fuse(bowl, FusionPlan(evaluations=300))
    found = np.array([fused.recipe.members[name] for name in "abc"])
    np.testing.assert_allclose(found, bowl.optimum, atol=0.02)
    assert fused.loss == bowl.loss(fused.recipe)
    assert fused.n_evaluations == len(bowl.seen) - 1 <= 300 + len(GRID)


def test_finds_a_weight_for_each_group_of_layers():
    bowl = Bowl([[0.2, 0.4], [0.5, 0.1], [0.3, 0.3]])
    fused = fuse(bowl, FusionPlan(evaluations=1200, groups=2))
    assert fused.recipe.n_groups == 2
    found = np.array([fused.recipe.members[name] for name in "abc"])
    np.testing.assert_allclose(found, bowl.optimum, atol=0.03)


def test_is_no_worse_than_the_best_common_weight():
    bowl = Bowl([[0.3], [0.3], [0.3]])
    assert fuse(bowl, FusionPlan(evaluations=0)).loss == 0.0


def test_equal_seeds_give_equal_results():
    one, other = (fuse(Bowl([[0.2], [0.5], [0.1]]), FusionPlan(evaluations=60)) for _ in range(2))
    assert one == other
