"""Vectors of methods that say something of linear layers only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from benchmarks.merging.problem import MergeProblem

RESTS: Final = ("base", "mean", "sum")
"""What becomes of embeddings, norms and biases; papers differ, so it is tuned."""


def with_matrices(problem: MergeProblem, matrices: Mapping[str, Tensor], rest: str) -> Tensor:
    """float32 [numel]: the given matrices, and of all else nothing, the mean or the sum."""
    vector = problem.mean * {"base": 0, "mean": 1, "sum": len(problem.deltas)}[rest]
    for span in problem.linear:
        vector[span.place] = matrices[span.name].reshape(-1)
    return vector
