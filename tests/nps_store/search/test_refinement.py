"""Learned selection, on a linear model whose gradient is known."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch

from nps_store.errors import NonFiniteObjectiveError
from nps_store.search import RULES, Candidate, Refinement, Stopwatch
from nps_store.search.refinement import MARGIN, Near
from tests.nps_store.search.vectors import Vectors, dense, flat_positions, selector

KEEP = 150


class Linear:
    """Outputs of a linear model of the task vector, to be those of the whole task vector."""

    def __init__(self, vectors: Vectors, near: Near, *, n_outputs: int = 40) -> None:
        maps = np.random.default_rng(1).standard_normal((n_outputs, len(vectors.flat)))
        starts = np.cumsum([0, *map(len, vectors.arrays.values())])
        start_of = dict(zip(vectors.arrays, starts, strict=False))
        flat = [start_of[name] + positions.numpy() for name, positions in near.positions.items()]
        self.wanted = torch.from_numpy(maps @ vectors.flat.astype(np.float64)).float()
        self.map = torch.from_numpy(maps[:, np.concatenate(flat)]).float()
        self.whole = torch.from_numpy(maps).float()

    def __call__(self, values):
        error = self.map @ values - self.wanted
        return float(error.square().sum()), 2 * self.map.T @ error

    def error(self, delta) -> float:
        return float((self.whole @ torch.from_numpy(delta) - self.wanted).square().sum())


def prepared(vectors, keep=KEEP, rule="nps"):
    chooser = selector(vectors, RULES[rule], len(vectors.flat))
    selection = chooser.select(Candidate.neutral(RULES[rule].n_bands), keep=keep)
    return selection, Near(chooser, selection)


def test_learning_comes_closer_with_as_many_elements():
    vectors = Vectors((400, 1, 900, 700))
    selection, near = prepared(vectors)
    learner = Linear(vectors, near)
    learned = near.learn(learner, Refinement(steps=200)).selection
    assert learned.n_kept == selection.n_kept == KEEP
    before, after = (learner.error(dense(vectors, one)) for one in (selection, learned))
    assert after < 0.2 * before


def test_only_near_elements_are_kept_with_their_own_signs():
    vectors = Vectors((400, 1, 900, 700))
    _, near = prepared(vectors)
    learned = near.learn(Linear(vectors, near), Refinement(steps=50)).selection
    assert torch.isin(learned.kept, near.index).all()
    assert (learned.kept.diff() > 0).all()
    tau = vectors.flat[flat_positions(vectors, learned)]
    assert np.array_equal(learned.levels.sign().numpy(), np.sign(tau))


def test_near_is_all_within_the_margin():
    vectors = Vectors((3000,))
    selection, near = prepared(vectors)
    scores = near._selection.pool.score.numpy()
    cut = scores[selection.kept.numpy()].min() * math.exp(-MARGIN)
    assert np.array_equal(near.index, np.flatnonzero(scores >= cut))
    assert torch.isin(selection.kept, near.index).all()
    positions = torch.cat(list(near.positions.values()))
    assert np.array_equal(positions, selection.pool.position[near.index])


def test_a_selection_of_another_pool_is_refused():
    vectors = Vectors((400,))
    selection, _ = prepared(vectors)
    other = selector(vectors, RULES["nps"], 30)
    with pytest.raises(ValueError, match="different pools"):
        Near(other, selection)


def test_the_scale_is_held():
    """A learner that finds all values too large changes which are kept, not what one is worth."""
    vectors = Vectors((600, 600))
    selection, near = prepared(vectors)
    small = near.learn(lambda values: (float(values.square().sum()), values), Refinement(steps=9))
    learned = small.selection
    assert torch.equal(learned.scales, selection.scales)
    assert learned.n_kept == selection.n_kept


def test_dense_levels_are_learned_too():
    """At a rate where most elements are kept, learning turns levels up and down."""
    vectors = Vectors((1500,))
    selection, near = prepared(vectors, keep=900)
    assert selection.levels.max() > 2
    learner = Linear(vectors, near)
    learned = near.learn(learner, Refinement(steps=100)).selection
    assert learned.n_kept == 900
    common = learned.kept[torch.isin(learned.kept, selection.kept)]
    before, after = (
        one.levels[torch.searchsorted(one.kept, common)] for one in (selection, learned)
    )
    assert (before != after).sum() > 10
    assert learner.error(dense(vectors, learned)) < 0.2 * learner.error(dense(vectors, selection))


def test_equal_arguments_give_equal_selections():
    vectors = Vectors((400, 900))
    made = []
    for _ in range(2):
        _, near = prepared(vectors)
        learned = near.learn(Linear(vectors, near), Refinement(steps=40)).selection
        made.append(dense(vectors, learned))
    assert np.array_equal(*made)


def test_without_steps_nothing_changes():
    vectors = Vectors((400, 900))
    selection, near = prepared(vectors)
    learned = near.learn(Linear(vectors, near), Refinement(steps=0)).selection
    assert np.array_equal(dense(vectors, learned), dense(vectors, selection))


def test_learning_goes_on_where_it_ended():
    vectors = Vectors((400, 1, 900, 700))
    _, near = prepared(vectors)
    learner = Linear(vectors, near)
    learned = near.learn(learner, Refinement(steps=60))
    kept = near.learn(learner, Refinement(steps=0), start=learned)
    assert torch.equal(kept.selection.kept, learned.selection.kept)
    assert torch.equal(kept.selection.levels, learned.selection.levels)
    further = near.learn(learner, Refinement(steps=60), start=learned)
    errors = [learner.error(dense(vectors, one.selection)) for one in (learned, further)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("keep", [40, 300])
def test_another_rate_starts_from_what_was_learned(keep):
    """Elements near both thresholds keep their offsets, new ones begin at none; a few steps then
    do what many do from nothing."""
    vectors = Vectors((400, 1, 900, 700))
    _, near = prepared(vectors)
    learned = near.learn(Linear(vectors, near), Refinement(steps=100))
    selection, other = prepared(vectors, keep=keep)
    learner = Linear(vectors, other)
    started = other.learn(learner, Refinement(steps=0), start=learned)
    for name, (positions, offsets) in started.offsets.items():
        known = dict(zip(*map(torch.Tensor.tolist, learned.offsets[name]), strict=True))
        assert offsets.tolist() == [known.get(position, 0.0) for position in positions.tolist()]
    continued = other.learn(learner, Refinement(steps=15), start=learned)
    anew = other.learn(learner, Refinement(steps=15))
    assert continued.selection.n_kept == selection.n_kept
    errors = [learner.error(dense(vectors, one.selection)) for one in (continued, anew)]
    assert errors[0] < errors[1]


def test_a_loss_that_is_no_number_is_refused():
    _, near = prepared(Vectors((400,)), keep=20)

    class Broken:
        def __call__(self, values):
            return math.nan, values

    with pytest.raises(NonFiniteObjectiveError, match="step 1 "):
        near.learn(Broken(), Refinement(steps=3))


def test_the_stopwatch_ends_it():
    vectors = Vectors((400, 900))
    _, near = prepared(vectors)
    linear = Linear(vectors, near)

    class Slow:
        def __call__(self, values):
            time.sleep(0.02)
            return linear(values)

    began = time.monotonic()
    near.learn(Slow(), Refinement(steps=10_000), stopwatch=Stopwatch(0.2))
    assert time.monotonic() - began < 1.5
