"""TIES-Merging (Yadav et al., 2023, arXiv 2306.01708, algorithm 1): trim, elect, disjoint mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.merging.method import Tuned
from benchmarks.merging.problem import MergeProblem
from benchmarks.methods.trim import top
from nps_store.recipes import combined

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

KEEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
"""The paper keeps 0.2 when nothing can be tuned."""


class Ties(Tuned[MergeProblem]):
    """The kept fraction and lambda are tuned."""

    name = "TIES"

    def candidates(self, problem: MergeProblem) -> Iterator[tuple[Mapping[str, float], Tensor]]:
        """One for every kept fraction."""
        for keep in KEEPS:
            yield {"keep": keep}, ties(problem.deltas, keep)


def ties(deltas: Sequence[Tensor], keep: float) -> Tensor:
    """The vector of equation 3 before its lambda, float32 [numel], of task vectors [numel]."""
    trimmed = [top(delta, keep) for delta in deltas]
    return combined("ties", trimmed, [1.0] * len(trimmed), {})
