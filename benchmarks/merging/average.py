"""Weight averaging (uniform soup; Wortsman et al., 2022, arXiv 2203.05482, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.merging.method import Merged

if TYPE_CHECKING:
    from benchmarks.merging.problem import MergeProblem


class WeightAverage:
    """theta_pre + mean(tau_i), which is the mean of the models. With a scale of its own it would be
    Task Arithmetic, so it has none."""

    name = "weight averaging"

    def merge(self, problem: MergeProblem) -> Merged:
        """As `MergeMethod`."""
        return Merged(problem.mean)
