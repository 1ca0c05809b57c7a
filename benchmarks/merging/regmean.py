"""RegMean (Jin et al., 2023, arXiv 2212.09849, equation 2): every linear layer is the least-squares
fit to the outputs of all tasks' own layers on their own inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.merging.matrices import RESTS, with_matrices
from benchmarks.merging.method import Estimated
from benchmarks.methods.gram import input_grams

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from benchmarks.merging.problem import MergeProblem

OFF_DIAGONALS = (0.1, 0.5, 0.9, 0.99)
"""Factors on what is beside the diagonals of the Gram matrices; the authors take 0.9 mostly."""
RIDGE = 1e-6
"""In units of the mean diagonal entry: what keeps inputs that are always zero solvable."""


class RegMean(Estimated):
    """The factor on the off-diagonals, what the other tensors get (the authors: the mean), and a
    scale are tuned."""

    name = "RegMean"

    def candidates(self, problem: MergeProblem) -> Iterator[tuple[Mapping[str, object], Tensor]]:
        """One for every factor and treatment of the rest."""
        grams = [
            _grams(problem, task, delta)
            for task, delta in zip(problem.tasks, problem.deltas, strict=True)
        ]
        for factor in OFF_DIAGONALS:
            matrices = {
                span.name: least_squares(
                    [delta[span.place].view(span.shape) for delta in problem.deltas],
                    [gram[span.name] for gram in grams],
                    factor,
                )
                for span in problem.linear
            }
            for rest in RESTS:
                setting = {"off_diagonal": factor, "rest": rest}
                yield setting, with_matrices(problem, matrices, rest)


def least_squares(deltas: Sequence[Tensor], grams: Sequence[Tensor], factor: float) -> Tensor:
    """The merged matrix [out, in] of matrices [out, in] and Gram matrices [in, in].

    With W = base + tau on all sides of equation 2 the base drops out.
    """
    weight = torch.zeros_like(grams[0], dtype=torch.float64)
    wanted = torch.zeros_like(deltas[0].T, dtype=torch.float64)
    for delta, gram in zip(deltas, grams, strict=True):
        shrunk = gram.double() * factor
        shrunk.diagonal().copy_(gram.diagonal())
        weight += shrunk
        wanted += shrunk @ delta.T.double()
    weight.diagonal().add_(RIDGE * weight.diagonal().mean())
    return torch.linalg.solve(weight, wanted).T.float()


def _grams(problem: MergeProblem, task: str, delta: Tensor) -> dict[str, Tensor]:
    """Gram matrices of a task's own fine-tune on its own texts, the mean over these."""
    encoder, data = problem.encoder, problem.calibration[task]
    encoder.put_(problem.base + delta)
    found = input_grams(
        {span.name: encoder.layer(span.name) for span in problem.linear},
        data.batches,
        lambda batch: encoder.logits(task, batch.inputs),
    )
    return {name: gram / data.n_rows for name, gram in found.items()}
