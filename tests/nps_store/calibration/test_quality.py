"""Quality is 1 for the dense fine-tune and 0 for the base, by every measure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from nps_store.calibration import Outputs, accuracy, gain_kept
from nps_store.calibration.quality import gain_lost

MEASURES = ["distill", "loss", "accuracy"]


def outputs(seed, *, good=0.0, n=40, classes=3, are_logits=True):
    """Random outputs; `good` pulls them towards the labels."""
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(99).integers(classes, size=n)
    values = rng.standard_normal((n, classes))
    values[np.arange(n), labels] += good
    return Outputs(torch.from_numpy(values).float(), torch.from_numpy(labels), are_logits)


DENSE, BASE = outputs(0, good=3), outputs(1)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_ends_of_the_scale(measure):
    best = gain_kept(DENSE, dense=DENSE, base=BASE, measure=measure)
    worst = gain_kept(BASE, dense=DENSE, base=BASE, measure=measure)
    assert (best.value, best.low, best.high) == pytest.approx((1, 1, 1))
    assert (worst.value, worst.low, worst.high) == pytest.approx((0, 0, 0), abs=1e-12)
    assert (best.measure, best.n_examples) == (measure, 40)


@pytest.mark.parametrize("measure", MEASURES)
def test_between_them_the_interval_holds_the_value(measure):
    middle = outputs(2, good=1.5)
    quality = gain_kept(middle, dense=DENSE, base=BASE, measure=measure)
    assert 0 < quality.value < 1
    assert quality.low < quality.value < quality.high
    assert quality == gain_kept(middle, dense=DENSE, base=BASE, measure=measure)
    assert quality.to_json()["value"] == quality.value


def test_losses_equal_their_formulas():
    x, y = DENSE.values.double().numpy(), BASE.values.double().numpy()
    labels = BASE.labels.numpy()
    p, q = log_softmax(x, axis=1), log_softmax(y, axis=1)
    rows = np.arange(len(labels))
    assert BASE.losses("distill", DENSE) == pytest.approx((np.exp(p) * (p - q)).sum(1))
    assert BASE.losses("loss", DENSE) == pytest.approx(-q[rows, labels], rel=1e-5)
    assert BASE.losses("accuracy", DENSE) == pytest.approx((y.argmax(1) != labels) * 1.0)
    assert accuracy(BASE) == pytest.approx((y.argmax(1) == labels).mean())


def test_vectors_are_compared_by_angle():
    dense, base = (outputs(seed, are_logits=False) for seed in (0, 1))
    x, y = dense.values.numpy(), base.values.numpy()
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert base.losses("distill", dense) == pytest.approx(1 - cosine, abs=1e-5)
    doubled = Outputs(2 * dense.values, None, are_logits=False)
    assert doubled.losses("distill", dense) == pytest.approx(np.zeros(40), abs=1e-6)


def test_without_labels_only_distillation_can_be_measured():
    unlabelled = Outputs(DENSE.values, None, are_logits=True)
    assert unlabelled.losses("distill", DENSE).sum() == pytest.approx(0)
    for measure in ("loss", "accuracy"):
        with pytest.raises(ValueError, match="labels"):
            unlabelled.losses(measure, DENSE)
    with pytest.raises(ValueError, match="labels"):
        accuracy(unlabelled)


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
    parts = [outputs(seed, n=n) for seed in range(3)]
    quality = gain_kept(parts[0], dense=parts[1], base=parts[2], measure="distill")
    assert quality.n_examples == n
    assert np.isfinite([quality.value, quality.low, quality.high]).all()


def test_a_fine_tune_that_gains_nothing():
    quality = gain_kept(BASE, dense=BASE, base=BASE, measure="distill")
    assert quality.value == 1
