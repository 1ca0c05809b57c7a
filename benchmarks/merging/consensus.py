"""Consensus Merging on TIES (Wang et al., 2024, arXiv 2405.07813, section 4.3): what few tasks
have a say in is set to zero in the merged vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.merging.method import Tuned
from benchmarks.merging.problem import MergeProblem
from benchmarks.merging.ties import ties
from benchmarks.methods.tall import task_mask
from benchmarks.methods.tuning import least

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

KEEPS = (0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
LAMBDAS = (0.2, 0.3, 0.4, 0.5, 0.6)
"""Of the masks (their equation 5); the best is chosen for each task, as in the paper."""
AT_LEAST = (1, 2, 3)
"""Tasks that must agree: 2 in the paper, which removes what none or only one of them uses."""


class ConsensusTies(Tuned[MergeProblem]):
    """TIES's kept fraction, each task's lambda, how many must agree, and a scale are tuned."""

    name = "Consensus TIES"

    def candidates(self, problem: MergeProblem) -> Iterator[tuple[Mapping[str, float], Tensor]]:
        """One for every kept fraction and number of tasks."""
        for keep in KEEPS:
            merged = ties(problem.deltas, keep)
            users = torch.zeros_like(merged, dtype=torch.int8)
            for task, delta in zip(problem.tasks, problem.deltas, strict=True):
                users += _mask(problem, task, delta, merged)
            for at_least in AT_LEAST:
                setting = {"keep": keep, "at_least": at_least}
                yield setting, torch.where(users >= at_least, merged, 0.0)


def _mask(problem: MergeProblem, task: str, delta: Tensor, merged: Tensor) -> Tensor:
    """bool [numel]: the TALL mask under which the merged vector does this task best."""

    def loss(lambda_: float) -> float:
        mask = task_mask(delta, merged, lambda_)
        return problem.task_loss(task, torch.where(mask, merged, 0.0))

    return task_mask(delta, merged, least(LAMBDAS, loss)[0])
