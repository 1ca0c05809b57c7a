from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from nps_store.search.uniform import uniform

N = 20_000


@settings(max_examples=30, deadline=None)
@given(
    seed=st.text(max_size=8),
    tensor=st.text(max_size=20),
    start=st.integers(0, 2**40),
    cuts=st.lists(st.integers(0, 50), max_size=4),
)
def test_chunks_do_not_matter(seed, tensor, start, cuts):
    ends = np.cumsum([0, *cuts])
    whole = uniform(seed, tensor, start, int(ends[-1]))
    parts = [uniform(seed, tensor, start + int(a), int(b - a)) for a, b in itertools.pairwise(ends)]
    assert np.array_equal(whole, np.concatenate([np.empty(0, np.float32), *parts]))
    assert np.array_equal(whole, uniform(seed, tensor, start, int(ends[-1])))


def test_never_zero_never_one():
    u = uniform("0", "t", 0, 1 << 21)
    assert u.dtype == np.float32
    assert 0 < u.min() < 1e-5
    assert 1 - 1e-5 < u.max() < 1


@pytest.mark.parametrize("start", [0, 10**9, 2**33])
def test_is_uniform(start):
    assert kstest(uniform("0:role", "encoder.weight", start, N), "uniform").pvalue > 1e-4


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (("0", "a"), ("1", "a")),
        (("0", "a"), ("0", "b")),
        (("0:role", "a"), ("0:use", "a")),
        (("a", "bc"), ("ab", "c")),
    ],
)
def test_differs_and_is_uncorrelated_between_seeds_and_tensors(left, right):
    a, b = (uniform(*names, 0, N) for names in (left, right))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.04


def test_neighbours_are_uncorrelated():
    u = uniform("0", "t", 0, N)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.04


def test_the_numbers_never_change():
    """Stored tasks were made with them; a change here would break their reproduction."""
    u = uniform("0:role", "encoder.weight", 5, 4) * 2**24
    assert u.astype(int).tolist() == FIXED


FIXED = [7134303, 9273385, 14456979, 6426923]
