"""The pool loses nothing that any candidate could keep."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nps_store.search import RULES, Candidate
from nps_store.search import pool as pool_module
from nps_store.search.pool import collect
from nps_store.search.selection import Selector
from tests.nps_store.search.vectors import SEED, Vectors, dense, flat_positions, selector

rules = st.sampled_from(sorted(RULES))
weights = st.lists(st.floats(-6, 6), min_size=6, max_size=6)


def candidate(rule, log_weights):
    return Candidate(tuple(log_weights[: rule.n_bands]))


def everything(vectors, rule):
    """Scores and bands of all elements, from a pool that leaves nothing out."""
    pool = collect(vectors, rule=rule, max_keep=lambda numel: numel, seed=SEED)
    starts = np.cumsum([0, *map(len, vectors.arrays.values())])
    index = np.concatenate(
        [
            starts[list(vectors.arrays).index(name)] + pool.position[a:b].numpy()
            for name, a, b in zip(pool.tensors, pool.starts[:-1], pool.starts[1:], strict=True)
        ]
    )
    return pool, index


def arrays(pool):
    """Task vector, score and band of the elements."""
    return pool.tau.numpy(), pool.score.numpy(), pool.band.numpy()


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
    pool = collect(vectors, rule=rule, max_keep=lambda _: keep, seed=SEED)
    every, _ = everything(vectors, rule)
    (_, scores, bands), (_, every_score, every_band) = arrays(pool), arrays(every)
    for band in range(rule.n_bands):
        ours = np.sort(scores[bands == band])[::-1]
        best = np.sort(every_score[every_band == band])[::-1]
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
    taus, scores, _ = arrays(pool)
    assert np.array_equal(scores, expected[index].astype(np.float32))
    assert np.array_equal(taus, vectors.flat[index])
    held = (pool.position, pool.tau, pool.score, pool.band)
    assert sum(each.nbytes for each in held) == 13 * len(taus)
    assert set(index) == set(np.flatnonzero(tau))
    assert pool.numel == len(tau)
    assert pool.n_changed == np.count_nonzero(tau)
    squares = [float(np.square(a, dtype=np.float64).sum()) for a in vectors.arrays.values()]
    assert pool.energy == pytest.approx(squares)


def test_bands_are_ordered_by_magnitude():
    pool, _ = everything(Vectors((5000,)), RULES["nps"])
    tau, _, bands = arrays(pool)
    peaks = [np.abs(tau[bands == band]).max() for band in range(6)]
    floors = [np.abs(tau[bands == band]).min() for band in range(6)]
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
    counts = np.bincount(pool.band.numpy(), minlength=6)
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
    pool = collect(vectors, rule=RULES["nps"], max_keep=lambda numel: numel, seed=SEED)
    tau, score, _ = arrays(pool)
    magnitude = np.abs(tau)
    u = magnitude / score
    for amplitude in (1.0, 0.5, 0.0):
        drawn_in = magnitude / Selector(pool, amplitude=amplitude).score.numpy()
        assert drawn_in == pytest.approx(0.5 + amplitude * (u - 0.5), rel=1e-5)
    some = collect(vectors, rule=RULES["nps"], max_keep=lambda _: 30, seed=SEED)
    with pytest.raises(ValueError, match="all changed elements"):
        Selector(some, amplitude=0.0)


def test_positions_beyond_two_thousand_million_are_told():
    """They are kept in 32 bits, which torch reads with a sign."""
    pool, _ = everything(Vectors((5,)), RULES["nps"])
    far = dataclasses.replace(pool, position=torch.tensor([7, -1, -(2**31)], dtype=torch.int32))
    assert far.positions(torch.tensor([0, 1, 2])).tolist() == [7, 2**32 - 1, 2**31]
