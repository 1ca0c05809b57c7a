"""TALL-masks and Consensus (Wang et al., 2024): the sum of all tasks, and a mask for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.methods.levels import array_of, mask_record
from benchmarks.methods.merged import MERGED_STEPS, masked, shared_parts
from benchmarks.methods.method import Baseline, Fitted, Parts, Setting
from benchmarks.methods.tuning import best_scale, least

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.methods.problem import Problem, Receiver

LAMBDAS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
CONSENSUS_LAMBDA = 0.4
CONSENSUS_TASKS = 2


class Tall(Baseline):
    """An element is the task's where |tau| >= lambda |merged - tau|; lambda and one scale are
    searched. Consensus first removes what fewer than two tasks use from the shared vector."""

    settings = tuple({"step": step} for step in MERGED_STEPS)

    def __init__(self, *, consensus: bool) -> None:
        self.name = "Consensus" if consensus else "TALL-masks"
        self._consensus = consensus

    def fit(self, problem: Problem, setting: Setting) -> Fitted:
        """Merge, choose the mask, search the scale."""
        merged = self._merge(problem)
        shared, seen = shared_parts(problem.layout, merged, setting["step"])

        def mask(lambda_: float) -> Tensor:
            return task_mask(problem.delta, merged, lambda_) & (seen != 0)

        lambda_, _ = least(LAMBDAS, lambda x: problem.loss(seen * mask(x)))
        factor, _ = best_scale(problem, seen * mask(lambda_))
        parts: Parts = {"mask": mask_record(mask(lambda_)), "factor": np.float32([factor])}
        return Fitted(parts, shared, {"lambda": lambda_, "factor": factor})

    def decode(self, parts: Parts, shared: Parts, receiver: Receiver) -> Tensor:
        """The shared vector where the mask is set, times the factor."""
        return masked(shared, parts["mask"], receiver.layout) * array_of(parts["factor"])

    def _merge(self, problem: Problem) -> Tensor:
        merged = torch.zeros_like(problem.delta)
        for delta in problem.group():
            merged += delta
        if self._consensus:
            users = torch.zeros_like(merged, dtype=torch.int8)
            for delta in problem.group():
                users += task_mask(delta, merged, CONSENSUS_LAMBDA)
            merged = torch.where(users >= CONSENSUS_TASKS, merged, 0.0)
        return merged


def task_mask(delta: Tensor, merged: Tensor, lambda_: float) -> Tensor:
    """bool [numel], where a task has a say in the merged vector (their equation 5)."""
    return (delta.abs() >= lambda_ * (merged - delta).abs()) & (delta != 0)
