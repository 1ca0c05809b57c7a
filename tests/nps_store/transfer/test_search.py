"""The search of bands and layers against known optima."""

from __future__ import annotations

import numpy as np
import pytest

from nps_store.recipes import N_BANDS
from nps_store.recipes.recipe import EDGES, FACTORS
from nps_store.transfer import TransferPlan, transfer
from nps_store.transfer.search import GRID

BANDS = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


class Bowl:
    """The best weight of every band in every group of layers is known."""

    task = "a"
    edges = (0.1, 0.2, 0.4, 0.8, 1.6)

    def __init__(self, bands=BANDS, layers=(1.0,)):
        self.optimum = np.outer(bands, layers)
        self.seen = []

    def loss(self, recipe):
        self.seen.append(recipe)
        bands = [recipe.params[name] for name in FACTORS]
        found = np.outer(bands, recipe.members["a"])
        return float(((found - self.optimum) ** 2).sum())


def test_finds_a_weight_for_each_band():
    bowl = Bowl()
    found = transfer(bowl, TransferPlan(evaluations=600))
    np.testing.assert_allclose([found.recipe.params[name] for name in FACTORS], BANDS, atol=0.02)
    assert tuple(found.recipe.params[name] for name in EDGES) == bowl.edges
    assert found.loss == bowl.loss(found.recipe)
    assert found.n_evaluations == len(bowl.seen) - 1 <= 600 + len(GRID)


def test_finds_a_weight_for_each_group_of_layers():
    bowl = Bowl(layers=(0.5, 1.0, 1.5))
    found = transfer(bowl, TransferPlan(evaluations=2000, groups=3))
    assert len(found.recipe.members["a"]) == 3
    assert found.loss < 0.01


@pytest.mark.parametrize("share", [GRID[0], GRID[-1]])
def test_without_evaluations_it_is_lambda(share):
    found = transfer(Bowl(np.full(N_BANDS, share)), TransferPlan(evaluations=0))
    assert (found.loss, found.n_evaluations) == (0.0, len(GRID))


def test_equal_seeds_give_equal_results_and_few_bytes():
    plan = TransferPlan(evaluations=60, groups=7)
    one, other = (transfer(Bowl(layers=(1.0,) * 7), plan) for _ in range(2))
    assert one == other
    assert one.recipe.nbytes < 1000
