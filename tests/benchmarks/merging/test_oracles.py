"""Every method against its paper's definition in plain numpy, on tiny tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from benchmarks.merging import consensus as consensus_module
from benchmarks.merging.consensus import ConsensusTies
from benchmarks.merging.dare import dropped
from benchmarks.merging.fisher import diagonal, weighted_mean
from benchmarks.merging.iso import levelled
from benchmarks.merging.matrices import with_matrices
from benchmarks.merging.regmean import least_squares
from benchmarks.merging.ties import ties
from benchmarks.merging.wudi import optimised

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.merging.problem import MergeProblem


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def tensors(arrays: list[NDArray]) -> list[torch.Tensor]:
    return [torch.from_numpy(array.astype(np.float32)) for array in arrays]


def test_the_mean_is_the_mean(problem: MergeProblem) -> None:
    expected = np.mean([delta.numpy() for delta in problem.deltas], axis=0)
    np.testing.assert_allclose(problem.mean.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("keep", [0.25, 1.0])
def test_ties_trims_elects_and_takes_the_disjoint_mean(
    keep: float, rng: np.random.Generator
) -> None:
    taus = rng.normal(size=(4, 24)).astype(np.float32)
    expected = np.zeros(24)
    trimmed = np.zeros_like(taus)
    for t, tau in enumerate(taus):
        largest = np.argsort(-abs(tau))[: round(keep * 24)]
        trimmed[t, largest] = tau[largest]
    for p in range(24):
        sign = np.sign(trimmed[:, p].sum())
        agreeing = [v for v in trimmed[:, p] if v and np.sign(v) == sign]
        expected[p] = np.mean(agreeing) if agreeing else 0
    np.testing.assert_allclose(ties(tensors(list(taus)), keep), expected, atol=1e-6)


def test_dare_drops_its_share_and_keeps_the_expectation() -> None:
    tau = torch.full((20_000,), 0.5)
    found = dropped(tau, 0.9, seed=1)
    assert sorted(found.unique().tolist()) == pytest.approx([0, 5])
    assert float((found != 0).float().mean()) == pytest.approx(0.1, abs=0.01)
    assert torch.equal(found, dropped(tau, 0.9, seed=1))
    assert not torch.equal(found, dropped(tau, 0.9, seed=2))


def test_consensus_keeps_what_enough_masks_have(
    problem: MergeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consensus_module, "LAMBDAS", (0.4,))
    monkeypatch.setattr(consensus_module, "KEEPS", (0.2,))
    merged = ties(problem.deltas, 0.2).numpy()
    users = sum(
        (abs(tau) >= np.float32(0.4) * abs(merged - tau)) & (tau != 0)
        for tau in (delta.numpy() for delta in problem.deltas)
    )
    found = list(ConsensusTies().candidates(problem))
    assert [setting["at_least"] for setting, _ in found] == [1, 2, 3]
    for setting, vector in found:
        expected = np.where(users >= setting["at_least"], merged, 0)
        np.testing.assert_array_equal(vector.numpy(), expected)
    counts = [int(vector.count_nonzero()) for _, vector in found]
    assert counts[0] > counts[1] > counts[2]


def test_consensus_chooses_each_tasks_best_mask(problem: MergeProblem) -> None:
    merged, delta = ties(problem.deltas, 1.0), problem.deltas[1]
    chosen = consensus_module._mask(problem, "three", delta, merged)
    loss = problem.task_loss("three", torch.where(chosen, merged, 0.0))
    for lambda_ in consensus_module.LAMBDAS:
        mask = (delta.abs() >= lambda_ * (merged - delta).abs()) & (delta != 0)
        assert loss <= problem.task_loss("three", torch.where(mask, merged, 0.0))


def test_fisher_weighs_element_by_element(rng: np.random.Generator) -> None:
    taus, fishers = rng.normal(size=(3, 9)), rng.random((3, 9))
    fishers[:, 4] = 0
    floored = fishers + 1e-3
    expected = (floored * taus).sum(0) / floored.sum(0)
    found = weighted_mean(tensors(list(taus)), tensors(list(fishers)), 1e-3)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[4] == pytest.approx(taus[:, 4].mean(), abs=1e-5)


def test_the_fisher_of_a_linear_head_is_that_of_softmax_regression(
    problem: MergeProblem,
) -> None:
    """The bias of the last layer before the head: its gradient is known in closed form."""
    dense = problem.base + problem.deltas[0]
    batches = problem.calibration["two"].batches
    found = diagonal(problem.encoder, "two", dense, batches, seed=3)
    span = next(s for s in problem.layout.spans if s.name == "pooler.dense.bias")
    head = problem.encoder.module.classifier.weight.detach().numpy()
    pooled: list[np.ndarray] = []
    hook = problem.encoder.module.classifier.register_forward_pre_hook(
        lambda _, inputs: pooled.append(inputs[0].detach().numpy())
    )
    generator = torch.Generator().manual_seed(3)
    total, count = np.zeros(span.numel), 0
    problem.encoder.put_(dense)
    try:
        for row in range(max(len(b.labels) for b in batches)):
            for batch in batches:
                if row >= len(batch.labels):
                    continue
                logits = problem.encoder.logits(
                    "two", {k: v[row : row + 1] for k, v in batch.inputs.items()}
                )
                p = logits.softmax(-1)
                y = int(torch.multinomial(p, 1, generator=generator))
                error = np.eye(2)[y] - p.numpy()[0]
                total += (error @ head * (1 - pooled[-1][0] ** 2)) ** 2
                count += 1
    finally:
        hook.remove()
    np.testing.assert_allclose(found[span.place].numpy(), total / count, rtol=1e-3, atol=1e-9)


def test_regmean_is_least_squares_on_all_inputs(rng: np.random.Generator) -> None:
    inputs = [rng.normal(size=(40, 5)) * rng.random(5) for _ in range(3)]
    taus = [rng.normal(size=(4, 5)) for _ in range(3)]
    grams = [x.T @ x for x in inputs]
    found = least_squares(tensors(taus), tensors(grams), 1.0)
    stacked = np.concatenate(inputs)
    targets = np.concatenate([x @ tau.T for x, tau in zip(inputs, taus, strict=True)])
    expected = np.linalg.lstsq(stacked, targets, rcond=None)[0].T
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_regmean_without_off_diagonals_weighs_columns(rng: np.random.Generator) -> None:
    taus, grams = rng.normal(size=(3, 4, 5)), [np.diag(rng.random(5) + 0.1) for _ in range(3)]
    weight = np.stack([np.diag(gram) for gram in grams])[:, None]
    full = [gram + 0.05 for gram in grams]
    weight = weight + 0.05
    expected = (weight * taus).sum(0) / weight.sum(0)
    found = least_squares(tensors(list(taus)), tensors(full), 0.0)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_iso_makes_all_singular_values_their_mean(rng: np.random.Generator) -> None:
    matrix = rng.normal(size=(6, 4))
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    found = levelled(tensors([matrix])[0])
    np.testing.assert_allclose(found, s.mean() * u @ v, atol=1e-5)
    np.testing.assert_allclose(np.linalg.svd(found)[1], s.mean(), atol=1e-5)


def wudi_loss(merged: NDArray, taus: list[NDArray]) -> float:
    return sum(float((((merged - tau) @ tau.T) ** 2).sum() / (tau**2).sum()) for tau in taus)


def test_wudi_takes_adams_steps_on_its_loss(rng: np.random.Generator) -> None:
    """The paper's loop, with a gradient by differences."""
    taus = [rng.normal(size=(3, 4)) for _ in range(3)]
    merged = sum(taus)
    m, v = np.zeros_like(merged), np.zeros_like(merged)
    rate, eps = 0.05, 1e-5
    for step in range(1, 4):
        gradient = np.zeros_like(merged)
        for at in np.ndindex(merged.shape):
            shift = np.zeros_like(merged)
            shift[at] = eps
            difference = wudi_loss(merged + shift, taus) - wudi_loss(merged - shift, taus)
            gradient[at] = difference / (2 * eps)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.999**step)
        merged = merged - rate * m_hat / (np.sqrt(v_hat) + 1e-8)
    np.testing.assert_allclose(optimised(tensors(taus), rate, 3), merged, atol=1e-4)


def test_wudi_ends_where_its_loss_is_least(rng: np.random.Generator) -> None:
    taus = [rng.normal(size=(3, 6)) for _ in range(2)]
    found = optimised(tensors(taus), 0.02, 2000).numpy().astype(np.float64)
    assert wudi_loss(found, taus) < 1e-2 * wudi_loss(sum(taus), taus)


def test_vectors_of_matrices_hold_the_rest_as_asked(problem: MergeProblem) -> None:
    matrices = {span.name: torch.full(span.shape, 7.0) for span in problem.linear}
    for rest, factor in (("base", 0), ("mean", 1), ("sum", 3)):
        vector = with_matrices(problem, matrices, rest)
        for span in problem.layout.spans:
            expected = torch.full((span.numel,), 7.0)
            if span.kind != "linear":
                expected = problem.mean[span.place] * factor
            assert torch.equal(vector[span.place], expected)


def test_the_seed_is_the_tasks(problem: MergeProblem) -> None:
    seeds = {problem.seed(task) for task in problem.tasks}
    assert len(seeds) == len(problem.tasks)
    assert replace(problem, objective="accuracy").seed("two") == problem.seed("two")
