"""Grafting (Panigrahi et al., 2023, arXiv 2302.06600, section 2): a mask that is learned, from the
largest changes on, so that the task's loss is least."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.methods.trim import top
from benchmarks.transfer.method import Scaled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from benchmarks.transfer.problem import TransferProblem

STEPS = 40
CHECKED = (0, 20, STEPS)
"""Steps after which the mask is tried; 0 is magnitude."""
LEARNING_RATE = 0.3
SHARPNESS = 4.0
"""The sigmoid of minus it is how far a mask is from its basis at first."""


class Grafting(Scaled):
    """Soft mask gamma = basis (1 - s) + (1 - basis) s with s a sigmoid of what is learned.

    The basis is the allowed share of largest magnitude. The paper rounds gamma; here the largest
    of it are kept, so that exactly the allowed share changes. The loss is the divergence from the
    fine-tune, and Adam lowers it.
    """

    name = "grafting"

    def candidates(self, problem: TransferProblem) -> Iterator[tuple[Mapping[str, int], Tensor]]:
        """One for every number of steps."""
        task = problem.task
        basis = (top(problem.delta, problem.keep) != 0).float()
        scores = torch.full_like(problem.delta, -SHARPNESS).requires_grad_()
        optimizer = torch.optim.Adam([scores], lr=LEARNING_RATE)
        batches = task.calibration.batches
        for step in range(STEPS + 1):
            if step in CHECKED:
                gamma = _gamma(basis, scores.detach())
                yield {"steps": step}, kept(problem.delta, gamma, problem.keep)
            weights = task.base + _gamma(basis, scores) * problem.delta
            number = step % len(batches)
            loss = task.calibration.divergence(weights, number) / len(batches[number].labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


def kept(delta: Tensor, gamma: Tensor, keep: float) -> Tensor:
    """The allowed share of the elements: those of largest gamma, among equals of magnitude."""
    n_keep = max(1, round(keep * delta.numel()))
    by_magnitude = delta.abs().argsort(descending=True)
    by_gamma = gamma[by_magnitude].argsort(descending=True, stable=True)
    chosen = by_magnitude[by_gamma[:n_keep]]
    return torch.zeros_like(delta).index_copy_(0, chosen, delta[chosen])


def _gamma(basis: Tensor, scores: Tensor) -> Tensor:
    soft = scores.sigmoid()
    return basis * (1 - soft) + (1 - basis) * soft
