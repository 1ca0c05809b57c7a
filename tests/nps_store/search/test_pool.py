"""The pool loses nothing that any candidate could keep."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nps_store.search import RULES, Candidate
from nps_store.search import pool as pool_module
from nps_store.search.pool import collect
from tests.nps_store.search.vectors import SEED, Vectors, dense, flat_positions, selector

rules = st.sampled_from(sorted(RULES))
weights = st.lists(st.floats(-6, 6), min_size=6, max_size=6)


def candidate(rule, log_weights):
    return Candidate(tuple(log_weights[: rule.n_bands]))


def everything(vectors, rule):
    """Scores and bands of all elements, from a pool that leaves nothing out."""
    pool = collect(vectors, rule=rule, max_keep=len(vectors.flat), seed=SEED)
    starts = np.cumsum([0, *map(len, vectors.arrays.values())])
    index = np.concatenate(
        [
            starts[list(vectors.arrays).index(name)] + pool.position[a:b]
            for name, a, b in zip(pool.tensors, pool.starts[:-1], pool.starts[1:], strict=True)
        ]
    )
    return pool, index


@settings(max_examples=50, deadline=None)
@given(
    name=rules,
    log_weights=weights,
    keep=st.integers(1, 400),
    spare=st.integers(0, 100),
    seed=st.integers(0, 50),
    zeros=st.sampled_from([0.0, 0.9]),
)
def test_selects_what_a_look_at_all_elements_would(name, log_weights, keep, spare, seed, zeros):
    vectors, rule = Vectors(seed=seed, zeros=zeros), RULES[name]
    chosen = candidate(rule, log_weights)
    from_pool = selector(vectors, rule, keep + spare).select(chosen, keep=keep)
    from_all = selector(vectors, rule, len(vectors.flat)).select(chosen, keep=keep)
    assert np.array_equal(flat_positions(vectors, from_pool), flat_positions(vectors, from_all))
    assert np.array_equal(from_pool.values, from_all.values)


@settings(max_examples=30, deadline=None)
@given(name=rules, keep=st.integers(1, 60), seed=st.integers(0, 50))
def test_holds_nothing_that_no_candidate_keeps_but_for_the_grain_of_the_histogram(name, keep, seed):
    """The next element after `keep` in each band, and those that share its histogram cell."""
    vectors, rule = Vectors(seed=seed), RULES[name]
    pool = collect(vectors, rule=rule, max_keep=keep, seed=SEED)
    every, _ = everything(vectors, rule)
    for band in range(rule.n_bands):
        ours = np.sort(pool.score[pool.band == band])[::-1]
        best = np.sort(every.score[every.band == band])[::-1]
        assert np.array_equal(ours, best[: len(ours)])
        assert len(ours) >= min(len(best), keep + 1)
        cell = ours.view(np.uint32) >> 16
        assert (cell[keep:] == cell[keep : keep + 1]).all()


@pytest.mark.parametrize("name", sorted(RULES))
def test_scores_are_the_rules_own(name):
    vectors, rule = Vectors(zeros=0.3), RULES[name]
    pool, index = everything(vectors, rule)
    tau, u = np.abs(vectors.flat), vectors.u
    expected = {"nps": tau / u, "dither": tau / u, "dare": (tau > 0) / u}.get(name, tau)
    assert np.array_equal(pool.score, expected[index].astype(np.float32))
    assert np.array_equal(pool.tau, vectors.flat[index])
    assert set(index) == set(np.flatnonzero(tau))
    assert pool.numel == len(tau)
    assert pool.n_changed == np.count_nonzero(tau)
    squares = [float(np.square(a, dtype=np.float64).sum()) for a in vectors.arrays.values()]
    assert pool.energy == pytest.approx(squares)


def test_bands_are_ordered_by_magnitude():
    pool, _ = everything(Vectors((5000,)), RULES["nps"])
    magnitude = np.abs(pool.tau)
    peaks = [magnitude[pool.band == band].max() for band in range(6)]
    floors = [magnitude[pool.band == band].min() for band in range(6)]
    assert all(np.diff(peaks) > 0)
    assert all(top <= floor for top, floor in zip(peaks, floors[1:], strict=False))


def test_chunks_do_not_matter(monkeypatch):
    vectors = Vectors((1000, 3, 500))
    whole = selector(vectors, RULES["nps"], 100).select(Candidate.neutral(6), keep=100)
    monkeypatch.setattr(pool_module, "_CHUNK", 7)
    parts = selector(vectors, RULES["nps"], 100).select(Candidate.neutral(6), keep=100)
    assert np.array_equal(dense(vectors, whole), dense(vectors, parts))


@pytest.mark.parametrize("name", sorted(RULES))
@pytest.mark.parametrize("sizes", [(0,), (0, 5), (1,), (5, 0, 3)])
def test_tensors_without_elements_or_with_one(name, sizes):
    vectors, rule = Vectors(sizes), RULES[name]
    kept = selector(vectors, rule, 3).select(Candidate.neutral(rule.n_bands), keep=3)
    assert kept.n_kept == min(3, np.count_nonzero(vectors.flat))


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_fine_tune_equal_to_its_base_keeps_nothing(name):
    vectors, rule = Vectors(zeros=1.1), RULES[name]
    kept = selector(vectors, rule, 10).select(Candidate.neutral(rule.n_bands), keep=10)
    assert kept.n_kept == 0
    assert list(kept.tensors()) == []


def test_equal_count_bands_hold_equal_counts():
    rule = dataclasses.replace(RULES["topk"], spacing="count")
    pool, _ = everything(Vectors((20_000,), zeros=0.2), rule)
    counts = np.bincount(pool.band, minlength=6)
    assert counts == pytest.approx(np.full(6, counts.sum() / 6), rel=0.03)


def test_tensor_scope_keeps_the_same_share_of_each_tensor():
    vectors = Vectors((500, 4000, 1000))
    vectors.arrays["tensor.1"] *= 100
    rule = dataclasses.replace(RULES["magnitude"], scope="tensor")
    made = selector(vectors, rule, 550).select(Candidate.neutral(1), keep=550)
    sizes = {name: len(positions) for name, _, positions in made.tensors()}
    assert sizes == {"tensor.0": 50, "tensor.1": 400, "tensor.2": 100}
    for name, span, positions in made.tensors():
        tau = vectors.arrays[name]
        largest = np.sort(np.argsort(-np.abs(tau))[: len(positions)])
        assert np.array_equal(positions, largest)
        assert np.array_equal(made.values_in(span), tau[positions])


def test_rounding_draws_the_numbers_in_to_their_middle():
    vectors = Vectors((3000,))
    pool = collect(vectors, rule=RULES["nps"], max_keep=3000, seed=SEED)
    magnitude, u = np.abs(pool.tau), np.abs(pool.tau) / pool.score
    assert pool.rounded(1.0) is pool
    for amplitude in (0.5, 0.0):
        drawn_in = magnitude / pool.rounded(amplitude).score
        assert drawn_in == pytest.approx(0.5 + amplitude * (u - 0.5), rel=1e-5)
    some = collect(vectors, rule=RULES["nps"], max_keep=30, seed=SEED)
    with pytest.raises(ValueError, match="all changed elements"):
        some.rounded(0.0)
