"""Arrivals are Poisson, popularity is as it is called, and both are the seed's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.load.plan import MIXES, plan, popularity

MODELS = ("a", "b", "c", "d")


def make(**changed):
    asked = {"mix": "zipf", "rate": 100.0, "seconds": 60.0, "seed": 3} | changed
    return plan(MODELS, ("x", "y"), **asked)


@pytest.mark.parametrize("mix", MIXES)
def test_popularity_is_a_distribution_over_all_tasks(mix):
    shares = popularity(mix, 5)
    assert shares.shape == (5,)
    assert shares.sum() == pytest.approx(1)
    assert (np.diff(shares) <= 0).all()


def test_zipf_halves_for_the_second():
    shares = popularity("zipf", 4)
    assert shares[1] / shares[0] == pytest.approx(1 / 2)
    assert shares[3] / shares[0] == pytest.approx(1 / 4)


def test_gaps_between_arrivals_are_exponential():
    gaps = np.diff([planned.at_s for planned in make()])
    assert (gaps >= 0).all()
    assert stats.kstest(gaps, "expon", args=(0, 1 / 100)).pvalue > 0.01


@pytest.mark.parametrize("mix", ["zipf", "uniform"])
def test_requests_follow_the_mix(mix):
    asked = [planned.model for planned in make(mix=mix)]
    counts = [asked.count(model) for model in MODELS]
    expected = popularity(mix, 4) * len(asked)
    assert stats.chisquare(counts, expected).pvalue > 0.01


def test_the_same_seed_gives_the_same_load():
    assert make() == make()
    assert make() != make(seed=4)
