"""EMR-Merging (Huang et al., 2024): one elected vector for all tasks, a mask and rescaler each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.methods.levels import array_of, mask_record
from benchmarks.methods.merged import MERGED_STEPS, masked, shared_parts
from benchmarks.methods.method import Baseline, Fitted, Parts, Setting
from benchmarks.methods.tuning import best_scale

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.methods.problem import Problem, Receiver


class Emr(Baseline):
    """The mask keeps what agrees in sign; the rescaler is the paper's times a searched factor."""

    name = "EMR"
    settings = tuple({"step": step} for step in MERGED_STEPS)

    def fit(self, problem: Problem, setting: Setting) -> Fitted:
        """Elect, mask, rescale."""
        shared, seen = shared_parts(problem.layout, elect(problem.group()), setting["step"])
        mask = problem.delta * seen > 0
        rescaler = float(problem.delta.abs().sum() / (seen * mask).abs().sum().clamp(min=1e-30))
        factor, _ = best_scale(problem, seen * mask * rescaler)
        parts: Parts = {"mask": mask_record(mask), "factor": np.float32([rescaler * factor])}
        return Fitted(parts, shared, {"rescaler": rescaler, "factor": factor})

    def decode(self, parts: Parts, shared: Parts, receiver: Receiver) -> Tensor:
        """The shared vector where the mask is set, rescaled."""
        return masked(shared, parts["mask"], receiver.layout) * array_of(parts["factor"])


def elect(group: list[Tensor]) -> Tensor:
    """Of every element the sign of the sum and the largest magnitude that has this sign."""
    sign = torch.zeros_like(group[0])
    for delta in group:
        sign += delta
    sign.sign_()
    largest = torch.zeros_like(sign)
    for delta in group:
        torch.maximum(largest, delta * sign, out=largest)
    return largest * sign
