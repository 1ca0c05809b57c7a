"""DARE (Yu et al., 2024, arXiv 2311.03099, section 3.2) before TIES: random drop and rescale."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from benchmarks.merging.method import Tuned
from benchmarks.merging.problem import MergeProblem
from benchmarks.merging.ties import ties
from benchmarks.methods.dare import random_mask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

DROPS = (0.2, 0.5, 0.8, 0.9, 0.95, 0.98)
TRIMS = (0.2, 1.0)
"""Fractions that TIES keeps of what is left; all of it, as many implementations have it."""


class DareTies(Tuned[MergeProblem]):
    """Drop rate, TIES's kept fraction and lambda are tuned; every task has a seed of its own."""

    name = "DARE + TIES"

    def candidates(self, problem: MergeProblem) -> Iterator[tuple[Mapping[str, float], Tensor]]:
        """One for every drop rate and kept fraction."""
        for drop, trim in itertools.product(DROPS, TRIMS):
            kept = [
                dropped(delta, drop, problem.seed(task))
                for task, delta in zip(problem.tasks, problem.deltas, strict=True)
            ]
            yield {"drop": drop, "keep": trim}, ties(kept, trim * (1 - drop) if trim < 1 else 1.0)


def dropped(delta: Tensor, drop: float, seed: int) -> Tensor:
    """Every element zero with probability `drop`, else divided by 1 - drop."""
    kept = random_mask(seed, delta.numel(), 1 - drop).to(delta.device)
    return torch.where(kept, delta / (1 - drop), 0.0)
