"""WUDI-Merging (Cheng et al., 2025, arXiv 2503.08099, section 4): data-free, since the rows of
a task's matrix span about what the inputs of its layer do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.merging.matrices import RESTS, with_matrices
from benchmarks.merging.method import Tuned
from benchmarks.merging.problem import MergeProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

STEPS = 300
LEARNING_RATES = (1e-5, 1e-4, 1e-3)
"""The authors' own, and larger ones: where task vectors are long, it does not get far enough."""


class Wudi(Tuned[MergeProblem]):
    """Learning rate, what the other tensors get (the authors: nothing), and a scale are tuned."""

    name = "WUDI"

    def candidates(self, problem: MergeProblem) -> Iterator[tuple[Mapping[str, object], Tensor]]:
        """One for every learning rate and treatment of the rest."""
        for rate in LEARNING_RATES:
            matrices = {
                span.name: optimised(
                    [delta[span.place].view(span.shape) for delta in problem.deltas], rate
                )
                for span in problem.linear
            }
            for rest in RESTS:
                setting = {"learning_rate": rate, "rest": rest}
                yield setting, with_matrices(problem, matrices, rest)


def optimised(deltas: Sequence[Tensor], rate: float, steps: int = STEPS) -> Tensor:
    """The matrix [out, in] that Adam finds from the sum of the tasks' [out, in].

    The objective, sum_i |(tau - tau_i) tau_i^T|^2 / |tau_i|^2, is quadratic in tau: with
    C_i = tau_i^T tau_i / |tau_i|^2 its gradient is 2 (tau sum_i C_i - sum_i tau_i C_i).
    """
    covariances = [delta.T @ delta / delta.square().sum().clamp(min=1e-30) for delta in deltas]
    curvature = torch.stack(covariances).sum(0)
    target = torch.stack([d @ c for d, c in zip(deltas, covariances, strict=True)]).sum(0)
    merged = torch.stack(list(deltas)).sum(0).requires_grad_()
    optimizer = torch.optim.Adam([merged], lr=rate)
    for _ in range(steps):
        merged.grad = 2 * (merged.detach() @ curvature - target)
        optimizer.step()
    return merged.detach()
