"""The search for a rate, on objectives whose answer is known."""

from __future__ import annotations

import itertools
import math
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from nps_store.search import (
    MAX_KEEP,
    RULES,
    Candidate,
    Found,
    Plan,
    RateSearch,
    Refinement,
    Stopwatch,
)
from nps_store.search.refinement import Near
from tests.nps_store.search.vectors import Vectors, dense, selector

PLAN = Plan(evaluations=20)


class Synthetic:
    """Loss falls with the kept fraction as (knee / keep) ** 2, times a penalty for bad weights."""

    def __init__(self, knee: float = 0.01, *, slope: float = 0.0) -> None:
        self.knee, self.slope = knee, slope
        self.rates: list[float] = []

    def loss(self, selection) -> float:
        keep = selection.n_kept / selection.pool.numel
        self.rates.append(keep)
        bands = selection.pool.band[selection.kept].double()
        wrong = 5 - float(bands.mean()) if len(bands) else 5.0
        return 0.05 * (self.knee / max(keep, 1e-9)) ** 2 * (1 + self.slope * wrong)

    def check(self, selection) -> float:
        return 1 - self.loss(selection)


def rate_search(objective, *, rule="nps", vectors=None, plan=PLAN, **options):
    return RateSearch(
        vectors or Vectors((8000,)), RULES[rule], objective, plan=plan, seed="0:t", **options
    )


@pytest.mark.parametrize("rule", ["nps", "dither", "magnitude", "topk", "dare"])
@pytest.mark.parametrize("knee", [0.002, 0.03])
def test_finds_the_smallest_rate_that_meets_the_target(rule, knee):
    """The loss is .05 just at the knee, so the target .95 is met from there on."""
    found = rate_search(Synthetic(knee), rule=rule).at_quality(0.95)
    assert found.check >= 0.95
    assert knee <= found.keep * 1.01
    assert found.keep < 1.35 * knee
    assert found.selection.n_kept == round(found.keep * 8000)


def test_searched_weights_let_a_smaller_rate_pass():
    plain = rate_search(Synthetic(0.01, slope=1), rule="dither").at_quality(0.95)
    searched = rate_search(Synthetic(0.01, slope=1), rule="nps").at_quality(0.95)
    assert searched.keep < 0.8 * plain.keep
    assert max(searched.candidate.log_weights) > 0.3


def test_an_unreachable_target_says_so_at_the_largest_rate():
    found = rate_search(Synthetic(10)).at_quality(0.95)
    assert found.keep == MAX_KEEP
    assert found.check < 0.95


class Constant:
    def __init__(self, value: float) -> None:
        self.value = value

    def loss(self, selection) -> float:
        return self.value

    def check(self, selection) -> float:
        return 1 - self.value


@pytest.mark.timeout(60)
@pytest.mark.parametrize("zeros", [0.0, 1.1])
def test_a_task_whose_body_does_not_matter_ends_at_next_to_nothing(zeros):
    found = rate_search(Constant(0.0), vectors=Vectors((300,), zeros=zeros)).at_quality(0.99)
    assert found.selection.n_kept <= 1
    assert found.check == 1


def test_a_given_rate_is_kept():
    for rule in RULES:
        objective = Synthetic()
        search = rate_search(objective, rule=rule)
        found = search.at_keep(0.05)
        assert found.selection.n_kept == 400
        assert max(objective.rates) == objective.rates[-1] == 0.05
        assert math.isfinite(found.loss)
        assert search.n_evaluations == len(objective.rates) - 1  # one of them was the check


def test_without_data_nothing_is_evaluated():
    search = rate_search(None)
    found = search.at_keep(0.02)
    assert (found.selection.n_kept, search.n_evaluations) == (160, 0)
    assert math.isnan(found.loss)
    assert math.isnan(found.check)
    assert set(found.candidate.log_weights) == {0.0}


@pytest.mark.parametrize("rule", ["nps", "topk"])
def test_equal_arguments_give_equal_results(rule):
    vectors = Vectors((3000, 40))
    first, again = (
        rate_search(Synthetic(slope=0.5), rule=rule, vectors=vectors).at_quality(0.95)
        for _ in range(2)
    )
    assert first.candidate == again.candidate
    assert np.array_equal(dense(vectors, first.selection), dense(vectors, again.selection))


def test_another_seed_is_another_selection():
    vectors = Vectors((3000,))
    found = [
        RateSearch(vectors, RULES["dither"], None, plan=PLAN, seed=seed).at_keep(0.05)
        for seed in ("0:a", "0:b")
    ]
    assert not np.array_equal(*(dense(vectors, one.selection) for one in found))


def test_the_stopwatch_ends_the_search_at_the_best_so_far():
    class Slow(Synthetic):
        def loss(self, selection) -> float:
            time.sleep(0.01)
            return super().loss(selection)

    began = time.monotonic()
    search = rate_search(Slow(slope=1), plan=Plan(evaluations=10_000), stopwatch=Stopwatch(0.3))
    found = search.at_keep(0.02)
    assert 0.25 < time.monotonic() - began < 1.5
    assert found.selection.n_kept == 160
    assert search.n_evaluations > 5


def test_every_evaluation_is_reported():
    seen = []
    search = rate_search(Synthetic(), report=lambda *trial: seen.append(trial))
    search.at_keep(0.02)
    assert [count for _, _, count in seen] == list(range(1, search.n_evaluations + 1))
    assert {keep for keep, _, _ in seen} == {0.02}


def test_resize_keeps_the_candidate():
    search = rate_search(Synthetic(slope=1))
    found = search.at_keep(0.05)
    smaller = search.resize(found, 0.01)
    assert smaller.candidate.log_weights == pytest.approx(found.candidate.log_weights)
    assert smaller.selection.n_kept == 80
    assert search.unsearched(0.01).n_kept == 80


def test_a_search_that_turns_dense_collects_all_that_rounding_may_keep():
    """The elements collected just below the dense rates suffice for dither, but not for less."""
    vectors = Vectors((4000,))
    plan = Plan(evaluations=9, start_keep=0.13)

    def fresh():
        return rate_search(Error(vectors), vectors=vectors, plan=plan, learners=unteachable)

    missed = fresh().at_keep(0.13)
    found = fresh().at_quality(missed.check + 0.1 * (1 - missed.check))
    assert not missed.selection.pool.holds_all
    assert found.check > missed.check
    assert found.candidate.amplitude < 1
    assert found.selection.pool.holds_all


@contextmanager
def unteachable(positions):
    """A model without gradients: learning changes nothing."""
    yield lambda values: (0.0, torch.zeros_like(values))


def test_all_that_may_be_learned_is_collected():
    """What a learner is asked for is what it would be asked for if nothing were left out, even
    where all elements are in one band."""
    vectors, asked = Vectors((9000,)), []
    vectors.arrays["tensor.0"] = np.copysign(np.float32(1e-3), vectors.flat)

    @contextmanager
    def asking(positions):
        asked.append(positions)
        yield lambda values: (0.0, torch.zeros_like(values))

    found = rate_search(Synthetic(), vectors=vectors, learners=asking).at_keep(0.02)
    assert found.selection.pool.max_keep < 9000
    everything = selector(vectors, RULES["nps"], 9000, seed="0:t")
    near = Near(everything, everything.select(found.candidate, keep=180))
    assert torch.equal(asked[0]["tensor.0"], near.positions["tensor.0"])
    assert len(near.index) > 1.2 * 180


def test_rates_after_the_first_learn_what_is_new_to_them():
    """The share of the steps by which they keep more, or a quarter."""
    steps: list[int] = []
    kept: list[int] = []

    @contextmanager
    def counting(positions):
        steps.append(0)

        def step(values):
            steps[-1] += 1
            return 0.0, torch.zeros_like(values)

        yield step

    class Counted(Synthetic):
        def check(self, selection):
            kept.append(selection.n_kept)
            return super().check(selection)

    plan = replace(PLAN, refinement=Refinement(steps=100))
    rate_search(Counted(0.03), plan=plan, learners=counting).at_quality(0.95)
    rates = kept[::2]  # each is checked as it was selected and as it was learned
    shares = [1 - one / other for one, other in itertools.pairwise(rates)]
    assert steps == [100, *(math.ceil(100 * max(0.25, share)) for share in shares)]
    assert 25 in steps
    assert max(steps[1:]) > 25


def test_what_is_selected_does_not_depend_on_what_was_asked_before():
    vectors = Vectors((4000,))

    def fresh():
        return rate_search(Error(vectors), vectors=vectors)

    asked = [(0.02, 1.0), (0.3, 0.5), (0.3, 1.0), (0.01, 1.0), (0.2, 0.0), (0.1, 0.5)]
    candidates = [(keep, Candidate((0.5,) * 3 + (0.0,) * 3, 0.1, a)) for keep, a in asked]
    one = fresh()
    found = one.at_keep(0.05)
    for keep, candidate in candidates:
        given = Found(replace(found.selection, candidate=candidate), 0.05, 0.0, 0.0)
        ours, theirs = (search.resize(given, keep) for search in (one, fresh()))
        assert ours.candidate == theirs.candidate
        assert ours.candidate.amplitude == candidate.amplitude
        assert ours.loss == theirs.loss
        assert np.array_equal(dense(vectors, ours.selection), dense(vectors, theirs.selection))


def test_the_task_vector_is_read_no_more_than_collecting_needs():
    """Reading it takes minutes for a large model: edges, histogram and collection, once each."""
    vectors = Vectors((4000,))
    reads = []

    def counted():
        reads.append(1)
        return vectors()

    search = RateSearch(counted, RULES["nps"], Synthetic(), plan=PLAN, seed="0:t")
    search.at_keep(0.02)
    search.resize(search.at_keep(0.02), 0.01)
    search.unsearched(0.005)
    assert len(reads) == 3


class Error:
    """Loses what is off in the task vector, in shares of its energy."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self.amplitudes: set[float] = set()

    def loss(self, selection) -> float:
        self.amplitudes.add(selection.candidate.amplitude)
        error = np.square(dense(self.vectors, selection) - self.vectors.flat).sum()
        return float(error / np.square(self.vectors.flat).sum())

    def check(self, selection) -> float:
        return 1 - self.loss(selection)


def test_dense_rates_are_rounded_rather_than_dithered():
    vectors = Vectors((4000,))
    objective = Error(vectors)
    found = rate_search(objective, vectors=vectors).at_keep(0.3)
    assert objective.amplitudes == {0.0, 0.5, 1.0}
    assert found.candidate.amplitude < 1
    sparse = Error(vectors)
    assert rate_search(sparse, vectors=vectors).at_keep(0.02).candidate.amplitude == 1
    assert sparse.amplitudes == {1.0}


def test_a_rate_that_turns_dense_on_its_way_is_rounded():
    vectors = Vectors((4000,))
    objective = Error(vectors)
    found = rate_search(objective, vectors=vectors).at_quality(0.98)
    assert found.keep > 0.15
    assert found.check >= 0.98
    assert found.candidate.amplitude < 1
