"""What a candidate keeps, and what is stored of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nps_store.search import RULES, Candidate
from nps_store.search import selection as selection_module
from nps_store.search.selection import MAX_LEVEL
from tests.nps_store.search.vectors import Vectors, dense, flat_positions, selector

weights = st.lists(st.floats(-30, 30), min_size=6, max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(RULES)),
    log_weights=weights,
    keep=st.integers(1, 300),
    seed=st.integers(0, 50),
)
def test_keeps_as_many_as_asked(name, log_weights, keep, seed):
    vectors, rule = Vectors(seed=seed), RULES[name]
    chooser = selector(vectors, rule, keep)
    chosen = Candidate(tuple(log_weights[: rule.n_bands]))
    kept = chooser.select(chosen, keep=keep)
    if name == "nps" and max(log_weights) - min(log_weights) > 3:
        # Weights that far apart need levels beyond int8 for so many elements.
        assert kept.n_kept <= keep
    else:
        assert kept.n_kept == keep
    assert (kept.kept.diff() > 0).all()
    assert kept.values.dtype == torch.float32
    assert torch.isfinite(kept.values).all()


def test_more_than_was_collected_is_refused():
    with pytest.raises(ValueError, match="at most 10"):
        selector(Vectors(), RULES["topk"], 10).select(Candidate.neutral(6), keep=11)


@settings(max_examples=20, deadline=None)
@given(keep=st.integers(1, 1301), seed=st.integers(0, 50), scale=st.floats(-1, 1))
def test_magnitude_equals_argsort(keep, seed, scale):
    vectors = Vectors(seed=seed)
    kept = selector(vectors, RULES["magnitude"], keep).select(Candidate((0.0,), scale), keep=keep)
    order = np.argsort(-np.abs(vectors.flat), kind="stable")[:keep]
    expected = np.zeros_like(vectors.flat)
    expected[order] = vectors.flat[order] * np.float32(np.exp(scale))
    assert dense(vectors, kept) == pytest.approx(expected, rel=1e-6)
    assert kept.levels is None


@settings(max_examples=20, deadline=None)
@given(log_weights=weights, keep=st.integers(1, 400), seed=st.integers(0, 50))
def test_topk_equals_argsort_of_the_weighted_magnitudes(log_weights, keep, seed):
    vectors = Vectors(seed=seed)
    chooser = selector(vectors, RULES["topk"], 1301)
    kept = chooser.select(Candidate(tuple(log_weights)), keep=keep)
    pool = chooser.pool
    tau, band = pool.tau.numpy(), pool.band.numpy()
    weighted = np.abs(tau) * np.exp(log_weights)[band]
    assert weighted[kept.kept.numpy()].min() >= np.sort(weighted)[-keep] * (1 - 1e-5)
    at = kept.kept.numpy()
    expected = tau[at] * np.exp(log_weights)[band[at]]
    assert kept.values.numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["dither", "nps", "dare"])
@pytest.mark.parametrize(("keep", "zeros"), [(40, 0.0), (400, 0.0), (60, 0.7), (1301, 0.9)])
def test_random_selection_is_unbiased(name, keep, zeros):
    """The mean over many seeds is the task vector, whatever is unchanged in it."""
    vectors, rule = Vectors(zeros=zeros), RULES[name]
    n_seeds = 300
    total = np.zeros(len(vectors.flat))
    squares = np.zeros(len(vectors.flat))
    for seed in range(n_seeds):
        chooser = selector(vectors, rule, keep, seed=f"{seed}")
        made = dense(vectors, chooser.select(Candidate.neutral(rule.n_bands), keep=keep))
        total += made
        squares += np.square(made, dtype=np.float64)
    mean = total / n_seeds
    error = np.sqrt(np.maximum(squares / n_seeds - mean**2, 0) / n_seeds)
    assert np.abs(mean - vectors.flat).max() <= 6 * error.max()
    projection = mean @ vectors.flat / (vectors.flat @ vectors.flat)
    assert projection == pytest.approx(1, abs=0.05)


@settings(max_examples=30, deadline=None)
@given(log_weights=st.lists(st.floats(-2, 2), min_size=6, max_size=6), seed=st.integers(0, 20))
def test_a_level_is_the_dithered_rounding_of_the_weighted_element(log_weights, seed):
    """level = floor(w |tau| / step + 1 - u), by a loop over the elements."""
    vectors, keep = Vectors(seed=seed), 500
    chooser = selector(vectors, RULES["nps"], keep)
    chosen = Candidate(tuple(log_weights), 0.1)
    kept = chooser.select(chosen, keep=keep)
    thresholds = chooser.thresholds(chosen, keep)
    positions = flat_positions(vectors, kept)
    tau, u = vectors.flat[positions].astype(np.float64), vectors.u[positions].astype(np.float64)
    x = np.abs(tau) / thresholds[chooser.pool.band[kept.kept].numpy()]
    exact = x + 1 - u
    level = np.clip(np.floor(exact), 1, MAX_LEVEL)
    near = np.abs(exact - np.round(exact)) < 1e-5  # u is read back from a float32 quotient
    assert np.array_equal(kept.levels.abs().numpy()[~near], level[~near])
    assert np.array_equal(kept.levels.sign().numpy(), np.sign(tau))
    assert torch.allclose(kept.values, kept.levels * kept.scales[0])


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("zeros", [0.0, 0.9])
@pytest.mark.parametrize("name", ["dither", "nps"])
def test_more_elements_never_hurt(name, keep, zeros):
    """Levels fit their range at every rate, so the error shrinks as the rate grows."""
    vectors, rule = Vectors((20_000,), zeros=zeros), RULES[name]
    n_keep = round(keep * 20_000)
    made = selector(vectors, rule, n_keep).select(Candidate.neutral(rule.n_bands), keep=n_keep)
    assert made.levels.abs().max() <= MAX_LEVEL
    tau = vectors.flat
    error = np.square(dense(vectors, made) - tau).sum() / np.square(tau).sum()
    limit = {0.02: 25, 0.3: 0.4, 0.7: 0.06, 1.0: 0.06}[keep]
    assert error < (limit if zeros == 0 else 0.06 if keep > 0.1 else 1)


@pytest.mark.parametrize("log_scale", [0.0, 1.0])
@pytest.mark.parametrize("log_weights", [(0.0,) * 6, (-2.0, -1.0, 0.0, 0.5, 1.0, 2.0)])
def test_levels_keep_the_projection_on_the_task_vector(log_weights, log_scale):
    vectors = Vectors((3000,))
    candidate = Candidate(log_weights, log_scale)
    made = selector(vectors, RULES["nps"], 300).select(candidate, keep=300)
    tau = vectors.flat.astype(np.float64)
    assert dense(vectors, made) @ tau == pytest.approx(tau @ tau, rel=1e-4)


def test_candidates_and_vectors_are_each_others_inverse():
    candidate = Candidate((1.0, -2.0, 1.0), 0.3)
    other = Candidate((0.0, 0.0, 0.0), 0.3, 1.0)
    for scaled in (False, True):
        vector = candidate.vector(scaled=scaled)
        assert len(vector) == 3 + scaled
        assert other.moved(vector) == candidate
        assert np.array_equal(candidate.moved(vector + 1).vector(scaled=scaled), vector + 1)
    assert candidate.moved(np.zeros(4)).log_scale == 0


def test_only_ratios_of_weights_matter():
    shifted = Candidate((5.0, 6.0, 7.0), 0.5, 0.25)
    assert shifted.centred() == Candidate((-1.0, 0.0, 1.0), 0.5, 0.25)
    chooser = selector(Vectors(), RULES["topk"], 200)
    chosen = Candidate((5.0, 6.0, 7.0, 3.0, 4.0, 5.0))
    kept, again = (chooser.select(one, keep=100).kept for one in (chosen, chosen.centred()))
    assert torch.equal(kept, again)


def test_a_candidate_of_another_amplitude_is_refused():
    with pytest.raises(ValueError, match=r"amplitude is 0\.5; expected 1\.0"):
        selector(Vectors(), RULES["nps"], 200).select(Candidate((0.0,) * 6, 0.0, 0.5), keep=10)


def test_runs_do_not_matter(monkeypatch):
    vectors = Vectors((1000, 3, 500))
    chooser = selector(vectors, RULES["nps"], 100)
    whole = chooser.select(Candidate.neutral(6), keep=100)
    monkeypatch.setattr(selection_module, "_RUN", 7)
    parts = chooser.select(Candidate.neutral(6), keep=100)
    assert torch.equal(whole.kept, parts.kept)


def test_tensors_give_each_its_own_positions():
    vectors = Vectors((50, 50, 50))
    vectors.arrays["tensor.1"][:] = 0
    made = selector(vectors, RULES["magnitude"], 100).select(Candidate.neutral(1), keep=100)
    seen = {name: (made.values[span], at) for name, span, at in made.tensors()}
    assert list(seen) == ["tensor.0", "tensor.2"]
    for name, (values, positions) in seen.items():
        assert np.array_equal(values, vectors.arrays[name][positions])
