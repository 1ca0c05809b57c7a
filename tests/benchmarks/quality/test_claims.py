"""Variations are searched and scored; those that the search lacks are refused, and told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks.methods.trim import top
from benchmarks.quality.claims import PAPER_METHODS, summary, versus
from benchmarks.quality.paper_order import equal_count_bands, solve
from benchmarks.quality.variations import STORED, Case, Objective, cases, measure

if TYPE_CHECKING:
    from benchmarks.quality.tasks import Loaded


@pytest.mark.parametrize("rule", ["topk", "nps"])
def test_a_variation_is_searched_and_scored(rule: str, loaded: Loaded) -> None:
    row = measure(loaded, Case("M = 3", rule, {"n_bands": 3}), 12)
    assert row["calibration_loss"] < 1
    assert row["n_evaluations"] > 1
    unsearched = measure(loaded, Case("no search", rule, {"searched": False}), 12)
    assert row["calibration_loss"] <= unsearched["calibration_loss"]


def test_what_a_store_holds_is_varied_too(loaded: Loaded) -> None:
    quick = {"evaluations": 2, "steps": 2}
    row, other = (measure(loaded, Case("", STORED, seed=seed, options=quick), 0) for seed in (0, 1))
    assert row["nbytes"] > 0
    assert row["gain_kept"] != other["gain_kept"]
    assert len({case.name for case in cases(STORED)}) == len(list(cases(STORED)))


def test_the_objective_is_one_at_the_base_and_zero_at_the_fine_tune(loaded: Loaded) -> None:
    problem = loaded.problem
    nothing = torch.zeros_like(problem.delta)
    distilled, labelled = Objective(problem), Objective(problem, "loss")
    assert distilled.loss_of(nothing) == pytest.approx(1)
    assert labelled.loss_of(nothing) == pytest.approx(1)
    assert distilled.loss_of(problem.delta) < 1e-3
    assert 0 < labelled.loss_of(problem.delta) < 1


def test_the_papers_order_prunes_what_was_searched_whole(loaded: Loaded) -> None:
    row = measure(loaded, Case("after", "topk", measure="loss", prune_after=True), 24)
    assert row["prune_after"]
    problem = loaded.problem
    objective = Objective(problem, "loss")
    delta = solve(problem.delta, 0.1, objective.loss_of, seed=0, evaluations=0)
    assert torch.equal(delta, top(problem.delta, 0.1))


def test_bands_of_equal_count_are_ordered_by_magnitude() -> None:
    torch.manual_seed(0)
    delta = torch.randn(1000)
    bands = equal_count_bands(delta, 10)
    assert torch.bincount(bands).tolist() == [100] * 10
    edges = [delta.abs()[bands == band].max() for band in range(10)]
    assert edges == sorted(edges)


def test_a_variation_that_the_search_lacks_is_refused(loaded: Loaded) -> None:
    with pytest.raises(TypeError, match="nowhere"):
        measure(loaded, Case("?", "topk", {"nowhere": 1}), 6)


@pytest.mark.parametrize("rule", ["topk", "nps"])
def test_cases_have_names_of_their_own(rule: str) -> None:
    names = [case.name for case in cases(rule)]
    assert len(names) == len(set(names)) > 15


def test_the_summary_has_the_spread_of_the_seeds() -> None:
    rows = [
        {"rule": "topk", "name": name, "gain_kept": gain, "accuracy_ratio": 1.0}
        for name, gain in (("as it is", 0.5), ("seed 1", 0.7), ("M = 2", 0.1))
    ]
    lines = {name: means for _, name, means in summary([*rows, {"reason": "none"}])}
    assert lines["2 seeds"]["gain_kept"] == pytest.approx(0.6)
    assert lines["2 seeds"]["gain_kept sd"] == pytest.approx(0.1414, abs=1e-4)


def test_top_k_stands_beside_ties_and_dare() -> None:
    point = {
        "group": "classifiers", "task": "a", "method": "trim", "setting": {"keep": 0.1},
        "bits": 1.0, "nbytes": 10, "accuracy_ratio": 0.5,
    }  # fmt: skip
    lines = list(versus([point]))
    assert [name for name, *_ in lines] == list(PAPER_METHODS)
    assert lines[0] == ["trim", "-", "0.5000", "-"]
