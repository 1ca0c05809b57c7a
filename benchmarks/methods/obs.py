"""Optimal brain surgeon on a delta: SparseGPT (Frantar and Alistarh, 2023) with 2:4 and levels.

Columns are rounded from left to right; what a column loses is made up for by those to its right, so
that the layer's outputs on the calibration inputs change least.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.methods.gram import input_grams

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.methods.layout import Span
    from benchmarks.methods.problem import Problem

GROUP = 4
DAMPING = 0.01


def hessians(problem: Problem, spans: list[Span]) -> dict[str, Tensor]:
    """Sum of x x^T over the dense fine-tune's inputs of each linear layer, float32 [in, in]."""
    forward = problem.forward
    return input_grams(
        {span.name: forward.layer(span.name) for span in spans},
        problem.calibration.batches,
        lambda batch: forward.logits(problem.dense, batch, head=forward.dense_head),
    )


def solve(delta: Tensor, hessian: Tensor, scale: Tensor, top_level: int) -> tuple[Tensor, Tensor]:
    """Round a delta [out, in] to 2 of 4 levels a group.

    Args:
        delta: float32 [out, in], `in` a multiple of 4.
        hessian: float32 [in, in] of the layer's inputs.
        scale: float32 [out, 1], value of one level in each row.
        top_level: Largest level.

    Returns:
        int8 [out, in] levels, and bool [out, in], true at the 2 kept of every 4.
    """
    inverse = _inverse_factor(hessian)
    rest = delta.clone()
    levels = torch.zeros_like(delta, dtype=torch.int8)
    kept = torch.zeros_like(delta, dtype=torch.bool)
    for column in range(delta.shape[1]):
        if column % GROUP == 0:
            block = slice(column, column + GROUP)
            kept[:, block] = two_of_four(rest[:, block] / inverse.diagonal()[block])
        wanted = rest[:, column]
        level = (wanted / scale[:, 0]).round().clamp(-top_level, top_level)
        level = torch.where(kept[:, column], level, 0.0)
        levels[:, column] = level.to(torch.int8)
        error = (wanted - level * scale[:, 0]) / inverse[column, column]
        rest[:, column + 1 :] -= error[:, None] * inverse[column, column + 1 :]
    return levels, kept


def two_of_four(values: Tensor) -> Tensor:
    """bool like `values` [n, 4 k], true at the two largest magnitudes of every four."""
    groups = values.abs().reshape(-1, GROUP)
    kept = torch.zeros_like(groups, dtype=torch.bool)
    kept.scatter_(1, groups.topk(2, dim=1).indices, value=True)
    return kept.view(values.shape)


def _inverse_factor(hessian: Tensor) -> Tensor:
    """Upper Cholesky factor of the damped Hessian's inverse."""
    diagonal = hessian.diagonal().double()
    damping = (DAMPING * diagonal.mean()).clamp(min=1e-12)
    damped = hessian.double() + torch.diag(damping.expand_as(diagonal))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True).float()
