"""The largest changes, as TIES trims (Yadav et al., 2023, arXiv 2306.01708, section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.methods.trim import top
from benchmarks.transfer.method import Scaled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from benchmarks.transfer.problem import TransferProblem


class Magnitude(Scaled):
    """The allowed share of the elements with the largest magnitude."""

    name = "magnitude"

    def candidates(self, problem: TransferProblem) -> Iterator[tuple[Mapping[str, float], Tensor]]:
        """The one there is."""
        yield {}, top(problem.delta, problem.keep)
