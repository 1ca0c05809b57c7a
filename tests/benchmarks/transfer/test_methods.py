"""What holds for every method, and the two that are more than a cut against their definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from benchmarks.methods.trim import top
from benchmarks.transfer import METHODS
from benchmarks.transfer.grafting import Grafting, kept
from benchmarks.transfer.model_tailor import corrected_rows, damped, sensitive
from benchmarks.transfer.table import means

if TYPE_CHECKING:
    from benchmarks.transfer.bench import Bench


@pytest.mark.parametrize("name", METHODS)
def test_a_method_stays_in_its_share_and_beats_both_ends(name: str, bench: Bench) -> None:
    problem = bench.problem
    found = METHODS[name].merge(problem)
    share = float((found.delta != 0).double().mean())
    if name == "WiSE-FT":
        assert share > 0.5
    else:
        assert share == pytest.approx(0.1, rel=0.05)
    assert problem.loss(found.delta) == pytest.approx(found.tuned["loss"], abs=1e-6)
    assert found.tuned["loss"] <= problem.loss(torch.zeros_like(found.delta)) + 0.02


def test_the_references_keep_all_of_their_own_side(bench: Bench) -> None:
    rows = {name: bench.row(name, merged, 0) for name, merged in bench.references().items()}
    assert rows["fine-tune"]["task_kept"] == 1
    assert rows["base"]["base_kept"] == 1
    for row in rows.values():
        task, base = row["task_kept"], row["base_kept"]
        assert row["average"] == pytest.approx((task + base) / 2)
        assert row["h_score"] == pytest.approx(2 * task * base / (task + base))


def test_grafting_lowers_the_loss_of_its_basis(bench: Bench) -> None:
    problem = bench.problem
    tried = {s["steps"]: vector for s, vector in Grafting().candidates(problem)}
    assert torch.equal(tried[0], top(problem.delta, 0.1))
    assert problem.task.loss(tried[40]) < problem.task.loss(tried[0])


def test_grafting_keeps_the_largest_gammas_and_among_equals_the_largest_changes() -> None:
    delta = torch.tensor([1.0, -5.0, 2.0, 3.0, 4.0])
    gamma = torch.tensor([0.9, 0.1, 0.5, 0.5, 0.5])
    assert kept(delta, gamma, 0.6).tolist() == [1, 0, 0, 3, 4]


def test_sensitivity_is_the_cost_of_optimal_brain_surgeon() -> None:
    """An element costs what the outputs lose when it goes and the others make up for it."""
    rng = np.random.default_rng(0)
    inputs, tau = rng.normal(size=(30, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(3, 5))
    gram = inputs.T @ inputs
    cost = np.zeros_like(tau)
    for row, column in np.ndindex(tau.shape):
        others = np.delete(np.arange(5), column)
        wanted = inputs @ tau[row]
        best = np.linalg.lstsq(inputs[:, others], wanted, rcond=None)[0]
        cost[row, column] = ((inputs[:, others] @ best - wanted) ** 2).sum()
    largest = np.argsort(-cost.reshape(-1))[:6]
    mask = sensitive(torch.from_numpy(tau).float(), torch.from_numpy(gram).float(), 6)
    assert set(mask.reshape(-1).nonzero()[:, 0].tolist()) == set(largest.tolist())


def test_corrected_rows_are_least_squares_on_what_is_kept() -> None:
    rng = np.random.default_rng(1)
    inputs, tau = rng.normal(size=(30, 8)) @ rng.normal(size=(8, 8)), rng.normal(size=(4, 8))
    gram = damped(torch.from_numpy(inputs.T @ inputs).float())
    mask = torch.from_numpy(rng.random((4, 8)) < 0.4)
    found = corrected_rows(torch.from_numpy(tau).float(), mask, gram).numpy()
    h = gram.double().numpy()
    for row, kept_here in enumerate(mask.numpy()):
        assert not found[row][~kept_here].any()
        at = np.flatnonzero(kept_here)
        expected = np.linalg.solve(h[np.ix_(at, at)], h[at] @ tau[row])
        np.testing.assert_allclose(found[row][at], expected, rtol=1e-2, atol=1e-3)


def test_means_are_over_tasks_best_first() -> None:
    figures = ("changed", "accuracy", "recall", "mrr", "task_kept", "base_kept", "average")
    rows = [
        {"method": name, "h_score": score, **dict.fromkeys(figures, score)}
        for name, score in (("a", 0.1), ("b", 0.3), ("a", 0.3), ("b", 0.5))
    ]
    found = means(rows)
    assert [(row["method"], row["tasks"]) for row in found] == [("b", 2), ("a", 2)]
    assert found[1]["h_score"] == pytest.approx(0.2)
