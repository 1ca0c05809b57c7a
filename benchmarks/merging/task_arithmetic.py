"""Task Arithmetic (Ilharco et al., 2023, arXiv 2212.04089, section 4.2): one factor on the sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.merging.method import Tuned
from benchmarks.merging.problem import MergeProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor


class TaskArithmetic(Tuned[MergeProblem]):
    """theta_pre + lambda * sum(tau_i). The tuned scale is that of the mean: n times lambda."""

    name = "Task Arithmetic"

    def candidates(self, problem: MergeProblem) -> Iterator[tuple[Mapping[str, float], Tensor]]:
        """The one there is."""
        yield {}, problem.mean
