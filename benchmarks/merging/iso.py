"""Iso-C (Marczak et al., 2025, arXiv 2502.04959, algorithm 1): the summed task matrices with all
their singular values made equal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.merging.matrices import RESTS, with_matrices
from benchmarks.merging.method import Tuned
from benchmarks.merging.problem import MergeProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor


class IsoC(Tuned[MergeProblem]):
    """What the other tensors get (the authors: the mean), and the scale are tuned."""

    name = "Iso-C"

    def candidates(self, problem: MergeProblem) -> Iterator[tuple[Mapping[str, str], Tensor]]:
        """One for every treatment of the rest."""
        total = problem.mean * len(problem.deltas)
        matrices = {
            span.name: levelled(total[span.place].view(span.shape)) for span in problem.linear
        }
        for rest in RESTS:
            yield {"rest": rest}, with_matrices(problem, matrices, rest)


def levelled(matrix: Tensor) -> Tensor:
    """U V^T times the mean singular value of a matrix U S V^T."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return s.mean() * (u @ v)
