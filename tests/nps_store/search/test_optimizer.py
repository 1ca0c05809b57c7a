from __future__ import annotations

import time

import numpy as np
import pytest

from nps_store.errors import NonFiniteObjectiveError
from nps_store.search.optimizer import Stopwatch, Trial, minimize

OPTIMUM = np.array([1.0, -2.0, 0.5, 0.0])


def quadratic(x):
    return float(np.square(x - OPTIMUM) @ np.array([1.0, 4.0, 2.0, 1.0]))


def start(x=(0.0, 0.0, 0.0, 0.0), objective=quadratic):
    vector = np.array(x)
    return Trial(vector, objective(vector))


def search(objective=quadratic, **options):
    given = {"sigma": 0.5, "seed": 1, "max_evaluations": 600, **options}
    return minimize(objective, given.pop("start", start()), **given)


def test_finds_the_optimum_of_a_quadratic():
    best = search()
    assert best.value < 1e-6
    assert best.x == pytest.approx(OPTIMUM, abs=1e-3)
    assert best.value == quadratic(best.x)


@pytest.mark.parametrize("seed", [0, 1, 123])
def test_equal_seeds_give_equal_results_and_others_do_not(seed):
    first, again = (search(seed=seed, max_evaluations=50) for _ in range(2))
    assert np.array_equal(first.x, again.x)
    assert not np.array_equal(first.x, search(seed=seed + 1, max_evaluations=50).x)


def test_the_global_random_state_is_neither_read_nor_changed():
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    first = search(max_evaluations=60)
    assert np.array_equal(np.random.get_state()[1], before)
    np.random.seed(99)
    assert np.array_equal(search(max_evaluations=60).x, first.x)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_refused(value):
    count = 0

    def objective(x):
        nonlocal count
        count += 1
        return value if count == 7 else quadratic(x)

    with pytest.raises(NonFiniteObjectiveError, match="evaluation 7"):
        search(objective)


@pytest.mark.parametrize("budget", [-1, 0, 1, 7, 8, 9, 50])
def test_the_budget_holds(budget):
    calls = []
    begin = start()
    best = search(lambda x: calls.append(x) or quadratic(x), start=begin, max_evaluations=budget)
    assert len(calls) <= max(budget, 0)
    assert best.value <= begin.value
    if budget < 8:
        assert best is begin


def test_the_stopwatch_holds_within_one_evaluation():
    calls = []

    def slow(x):
        calls.append(x)
        time.sleep(0.02)
        return quadratic(x)

    began = time.monotonic()
    search(slow, stopwatch=Stopwatch(0.1))
    assert time.monotonic() - began < 0.5
    assert 1 <= len(calls) <= 6
    assert search(slow, stopwatch=Stopwatch(0.0)).value == quadratic(np.zeros(4))


def test_good_enough_ends_the_search():
    calls = []
    best = search(lambda x: calls.append(x) or quadratic(x), good_enough=5.0)
    assert best.value <= 5.0
    assert len(calls) < 100


def test_the_start_is_returned_when_nothing_is_better():
    best = search(lambda x: 1 + quadratic(x), start=Trial(np.zeros(4), 0.5), max_evaluations=40)
    assert np.array_equal(best.x, np.zeros(4))
    assert best.value == 0.5


def test_a_flat_objective_ends():
    assert search(lambda x: 1.0, start=Trial(np.zeros(2), 1.0), max_evaluations=10_000).value == 1.0


def test_a_search_writes_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    search(max_evaluations=100)
    assert list(tmp_path.iterdir()) == []


def test_stopwatch():
    assert Stopwatch().left_s == float("inf")
    assert not Stopwatch().over
    assert not Stopwatch(60).over
    assert Stopwatch(0).over
    assert 59 < Stopwatch(60).left_s <= 60
