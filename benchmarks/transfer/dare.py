"""DARE (Yu et al., 2024, arXiv 2311.03099, section 3.2): random drop and rescale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.merging.dare import dropped
from benchmarks.transfer.method import Scaled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from benchmarks.transfer.problem import TransferProblem


class Dare(Scaled):
    """A random choice of the allowed share."""

    name = "DARE"

    def candidates(self, problem: TransferProblem) -> Iterator[tuple[Mapping[str, float], Tensor]]:
        """The one there is."""
        yield {}, dropped(problem.delta, 1 - problem.keep, problem.task.seed)
