"""Merging rules against what their papers say, element by element in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nps_store.recipes import band_params, combined

DELTAS = st.integers(1, 5).flatmap(
    lambda n: arrays.arrays(np.float32, (n, 7), elements=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3]))
)


def weights_of(n):
    return [0.25 * (i + 1) for i in range(n)]


def ties(column, weights):
    sign = np.sign(sum(column))
    agreeing = [(d, w) for d, w in zip(column, weights, strict=True) if d and np.sign(d) == sign]
    return sum(d * w for d, w in agreeing) / max(len(agreeing), 1)


def consensus(column, weights):
    active = sum(d != 0 for d in column)
    return sum(d * w for d, w in zip(column, weights, strict=True)) if active >= 2 else 0.0


EDGES = [0.0, 0.5, 1.0, 1.5, 3.0]
FACTORS = [-1.0, 0.0, 0.25, 2.0, 1.0, 3.0]


def banded(column, weights):
    factors = [FACTORS[sum(abs(d) >= edge for edge in EDGES)] for d in column]
    return sum(d * f * w for d, f, w in zip(column, factors, weights, strict=True))


def linear(column, weights):
    return sum(d * w for d, w in zip(column, weights, strict=True))


@pytest.mark.parametrize(
    ("rule", "params", "expected"),
    [
        ("linear", {}, linear),
        ("bands", band_params(EDGES, FACTORS), banded),
        ("ties", {}, ties),
        ("consensus", {"at_least": 2.0}, consensus),
    ],
)
@settings(max_examples=50, deadline=None)
@given(deltas=DELTAS)
def test_rules(rule, params, expected, deltas):
    weights = weights_of(len(deltas))
    found = combined(rule, [torch.from_numpy(d) for d in deltas], weights, params)
    wanted = [expected(column.tolist(), weights) for column in deltas.T]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6, atol=1e-7)


def test_the_order_of_members_is_the_order_of_summation():
    tiny, huge = torch.full((1,), 1.0), torch.full((1,), 2.0**24)
    first = combined("linear", [tiny, tiny, huge], [1.0] * 3, {})
    last = combined("linear", [huge, tiny, tiny], [1.0] * 3, {})
    assert (first - last).item() == 2.0
