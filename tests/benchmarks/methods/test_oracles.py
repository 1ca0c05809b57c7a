"""Known small cases of the single methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from benchmarks.methods.bitdelta import BitDelta
from benchmarks.methods.compeft import ComPeft
from benchmarks.methods.dare import seeded_mask
from benchmarks.methods.deltazip import row_scales
from benchmarks.methods.emr import elect
from benchmarks.methods.levels import array_of, levels_of, quantize, record_of
from benchmarks.methods.low_rank import cut, decompose, matrices
from benchmarks.methods.obs import solve, two_of_four
from benchmarks.methods.tall import task_mask
from benchmarks.methods.trim import top
from benchmarks.methods.tuning import best_scale, coarsest
from benchmarks.methods.ultradelta import keep_shares

if TYPE_CHECKING:
    from benchmarks.quality.tasks import Loaded


def test_top_keeps_the_largest_and_nothing_that_is_zero() -> None:
    delta = torch.tensor([0.5, -3.0, 0.0, 2.0, -0.1, 1.0])
    assert top(delta, 0.5).tolist() == [0, -3, 0, 2, 0, 1]
    assert top(torch.zeros(6), 0.5).count_nonzero() == 0


def test_seeded_masks_keep_their_share_and_differ_by_task(loaded: Loaded) -> None:
    receiver = loaded.problem.receiver
    mask = seeded_mask(receiver, 0.1)
    n = len(mask)
    assert abs(int(mask.sum()) - 0.1 * n) < 5 * (0.09 * n) ** 0.5
    assert torch.equal(mask, seeded_mask(receiver, 0.1))
    assert (mask <= seeded_mask(receiver, 0.2)).all()


def test_compeft_stores_signs_of_the_largest(loaded: Loaded) -> None:
    problem = loaded.problem
    fitted = ComPeft().fit(problem, {"keep": 0.1})
    assert torch.equal(
        levels_of(fitted.parts["levels"]), top(problem.delta, 0.1).sign().to(torch.int8)
    )


def test_bitdelta_has_one_magnitude_a_matrix_and_all_signs(loaded: Loaded) -> None:
    problem = loaded.problem
    decoded = BitDelta().compress(problem, {"bits": 1, "embeddings": False}).delta
    for span, tensor in problem.layout.views(decoded):
        own = problem.delta[span.place].view(span.shape)
        if span.kind == "linear":
            assert len(tensor.abs().unique()) == 1
            assert torch.equal(tensor < 0, own < 0)
        elif span.kind == "embedding":
            assert not tensor.any()
        else:
            assert (tensor - own).abs().max() <= own.abs().max() / 127


def test_two_of_four_keeps_the_two_largest() -> None:
    values = torch.tensor([[1.0, -4.0, 2.0, 3.0, 0.0, 0.0, -1.0, 0.0]])
    kept = two_of_four(values)
    assert kept[0, :4].tolist() == [False, True, False, True]
    assert kept[0, 4:].sum() == 2
    assert kept[0, 6]


@pytest.mark.parametrize("top_level", [1, 7])
def test_the_solver_beats_rounding_on_correlated_inputs(top_level: int) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(400, 6) @ torch.randn(6, 32) + 0.1 * torch.randn(400, 32)
    delta = torch.randn(16, 32)
    scale = row_scales(delta, top_level)
    levels, kept = solve(delta, inputs.T @ inputs, scale, top_level)
    assert (kept.view(-1, 4).sum(1) == 2).all()
    assert not levels[~kept].any()
    plain = (delta / scale).round().clamp(-top_level, top_level) * two_of_four(delta)
    solved_error = ((levels * scale - delta) @ inputs.T).square().sum()
    assert solved_error < 0.6 * ((plain * scale - delta) @ inputs.T).square().sum()


def test_the_solver_rounds_to_nearest_where_inputs_are_uncorrelated() -> None:
    torch.manual_seed(1)
    delta = torch.randn(8, 16)
    scale = row_scales(delta, 7)
    levels, kept = solve(delta, torch.eye(16), scale, 7)
    assert torch.equal(kept, two_of_four(delta))
    expected = (delta / scale).round().clamp(-7, 7) * kept
    assert torch.equal(levels.float(), expected)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
def test_decomposition_is_exact_and_ordered(shape: tuple[int, int]) -> None:
    torch.manual_seed(2)
    matrix = torch.randn(shape)
    u, s, v = decompose(matrix)
    torch.testing.assert_close(u * s @ v, matrix, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(s, torch.linalg.svdvals(matrix), atol=1e-4, rtol=1e-4)


def test_ranks_stay_within_the_budget_and_go_where_they_are_worth_most(loaded: Loaded) -> None:
    spans = matrices(loaded.problem.layout)[:3]
    singular = [torch.tensor([10.0 ** (2 - i), 0.01]) for i in range(3)]
    budget = sum(sum(span.shape) for span in spans[:2])
    ranks = cut(spans, singular, budget)
    assert ranks == [1, 1, 0]


def test_elected_are_the_sign_of_the_sum_and_its_largest_magnitude() -> None:
    group = [
        torch.tensor([1.0, -2.0, 0.0]),
        torch.tensor([3.0, -1.0, 0.5]),
        torch.tensor([-3.5, 1, 0]),
    ]
    assert elect(group).tolist() == [3.0, -2.0, 0.5]


def test_a_task_alone_is_its_own_everywhere() -> None:
    delta = torch.tensor([1.0, 0.0, -2.0])
    assert task_mask(delta, delta, 1.0).tolist() == [True, False, True]
    other = torch.tensor([5.0, 1.0, -2.1])
    assert task_mask(delta, delta + other, 0.5).tolist() == [False, False, True]


def test_more_variance_keeps_more(loaded: Loaded) -> None:
    problem = loaded.problem
    shares = keep_shares(problem.layout, problem.delta, 0.2, 0.5)
    variances = [float(t.double().square().mean()) for _, t in problem.layout.views(problem.delta)]
    order = np.argsort(variances)
    assert shares[order].tolist() == sorted(shares.tolist())
    assert sorted(set(shares.tolist())) == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize("factor", [0.4, 1.0, 5.0])
def test_the_scale_that_was_taken_off_is_found(factor: float, loaded: Loaded) -> None:
    problem = loaded.problem
    scale, loss = best_scale(problem, problem.delta / factor)
    assert scale == pytest.approx(factor, rel=0.2)
    assert loss <= problem.loss(problem.delta / factor)


def test_the_coarsest_that_is_good_enough() -> None:
    losses = {4: 0.5, 2: 0.1009, 1: 0.1}
    found = coarsest(losses, losses.__getitem__, reference=0.1, base=1.0)
    assert found == 2
    assert coarsest(losses, losses.__getitem__, reference=0.01, base=1.0) == 1


def test_levels_are_nearest_and_none_where_the_step_is_zero() -> None:
    flat = torch.tensor([0.24, -0.26, 100.0, 3.0])
    step = torch.tensor([0.5, 0.5, 0.5, 0.0])
    assert quantize(flat, step).tolist() == [0, -1, 127, 0]


@pytest.mark.parametrize("share", [0.01, 0.9])
def test_records_of_levels_come_back(share: float) -> None:
    torch.manual_seed(4)
    levels = ((torch.rand(1000) < share) * torch.randint(-9, 10, (1000,))).to(torch.int8)
    assert torch.equal(levels_of(record_of(levels)), levels)
    with pytest.raises(TypeError, match="no record"):
        levels_of(levels.numpy())
    with pytest.raises(TypeError, match="no array"):
        array_of(record_of(levels))
