"""Quality is 1 for the dense fine-tune and 0 for the base, by every measure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from nps_store.calibration import Losses, gain_kept
from nps_store.calibration.losses import class_losses, vector_losses
from nps_store.calibration.quality import gain_lost, gain_surely_kept

MEASURES = ["distill", "loss", "accuracy"]
LABELS = torch.from_numpy(np.random.default_rng(99).integers(3, size=40))


def logits(seed, *, good=0.0):
    """Random logits [40, 3]; `good` pulls them towards the labels."""
    values = np.random.default_rng(seed).standard_normal((40, 3))
    values[np.arange(40), LABELS] += good
    return torch.from_numpy(values).float()


def losses(seed, *, n=40, **kwargs):
    """Losses beside those of the dense fine-tune, seed 0."""
    made = class_losses(logits(seed, **kwargs)[:n], LABELS[:n], logits(0, good=3)[:n])
    return Losses(**{measure: values.double().numpy() for measure, values in made.items()})


DENSE, BASE = losses(0, good=3), losses(1)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_ends_of_the_scale(measure):
    best = gain_kept(DENSE, dense=DENSE, base=BASE, measure=measure)
    worst = gain_kept(BASE, dense=DENSE, base=BASE, measure=measure)
    assert (best.value, best.low, best.high) == pytest.approx((1, 1, 1))
    assert (worst.value, worst.low, worst.high) == pytest.approx((0, 0, 0), abs=1e-12)
    assert (best.measure, best.n_examples) == (measure, 40)


@pytest.mark.parametrize("measure", MEASURES)
def test_between_them_the_interval_holds_the_value(measure):
    middle = losses(2, good=1.5)
    quality = gain_kept(middle, dense=DENSE, base=BASE, measure=measure)
    assert 0 < quality.value < 1
    assert quality.low < quality.value < quality.high
    assert quality == gain_kept(middle, dense=DENSE, base=BASE, measure=measure)
    assert quality.to_json()["value"] == quality.value


def test_losses_equal_their_formulas():
    x, y = logits(0, good=3).double().numpy(), logits(1).double().numpy()
    p, q = log_softmax(x, axis=1), log_softmax(y, axis=1)
    rows, labels = np.arange(40), LABELS.numpy()
    assert BASE.of("distill") == pytest.approx((np.exp(p) * (p - q)).sum(1))
    assert BASE.of("loss") == pytest.approx(-q[rows, labels], rel=1e-5)
    assert BASE.of("accuracy") == pytest.approx((y.argmax(1) != labels) * 1.0)


def test_vectors_are_compared_by_angle():
    dense, base = logits(0), logits(1)
    x, y = dense.numpy(), base.numpy()
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert vector_losses(base, dense)["distill"].numpy() == pytest.approx(1 - cosine, abs=1e-5)
    doubled = vector_losses(2 * dense, dense)["distill"].numpy()
    assert doubled == pytest.approx(np.zeros(40), abs=1e-6)
    assert vector_losses(base, None) == {}


def test_what_was_not_measured_is_refused_by_name():
    unlabelled = Losses(distill=np.zeros(3))
    assert unlabelled.of("distill").sum() == 0
    for measure in ("loss", "accuracy"):
        with pytest.raises(ValueError, match="labels"):
            unlabelled.of(measure)
    with pytest.raises(ValueError, match="dense"):
        Losses().of("distill")
    assert class_losses(logits(0), None, None) == {}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 10)] * 3), min_size=1, max_size=5))
def test_gain_lost(rows):
    candidate, dense, base = map(np.array, zip(*rows, strict=True))
    lost = gain_lost(candidate, dense, base)
    gain = base.mean() - dense.mean()
    expected = candidate.mean() - dense.mean()
    assert lost == pytest.approx(expected / gain if gain > 0 else expected)


@pytest.mark.parametrize("n", [1, 2])
def test_very_few_examples(n):
    parts = [losses(seed, n=n) for seed in range(3)]
    quality = gain_kept(parts[1], dense=parts[0], base=parts[2], measure="distill")
    assert quality.n_examples == n
    assert np.isfinite([quality.value, quality.low, quality.high]).all()


def test_a_fine_tune_that_gains_nothing():
    quality = gain_kept(BASE, dense=BASE, base=BASE, measure="distill")
    assert quality.value == 1


def test_what_is_surely_kept_is_below_what_is_kept_by_a_standard_error():
    rng = np.random.default_rng(0)
    dense, base = rng.random(50), 2 + rng.random(50)
    losses = dense + 0.1 * rng.random(50)
    lost = gain_lost(losses, dense, base)
    sure = gain_surely_kept(losses, dense, base)
    resampled = [
        gain_lost(losses[at], dense[at], base[at]) for at in rng.integers(50, size=(4000, 50))
    ]
    assert 1 - lost - sure == pytest.approx(np.std(resampled), rel=0.1)


def test_what_is_surely_kept_of_one_example_or_of_no_gain():
    one = np.ones(1)
    assert gain_surely_kept(1.1 * one, one, 2 * one) == pytest.approx(0.9)
    flat = np.ones(4)
    assert gain_surely_kept(flat, flat, flat) == 1
