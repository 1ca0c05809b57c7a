"""Magnitude pruning as TIES does it (Yadav et al., 2023): the largest of the whole model stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.methods.levels import array_part, record_of
from benchmarks.methods.method import Baseline, Fitted, Parts, Setting
from benchmarks.methods.values import fit_values, values_of

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.methods.problem import Problem, Receiver


class Trim(Baseline):
    """Top-r of the magnitudes, plain or with one searched scale on all of them."""

    settings = tuple({"keep": keep} for keep in (0.0025, 0.005, 0.01, 0.02, 0.04, 0.1, 0.2, 0.4))

    def __init__(self, *, scaled: bool) -> None:
        self.name = "trim + scale" if scaled else "trim"
        self._scaled = scaled

    def fit(self, problem: Problem, setting: Setting) -> Fitted:
        """Cut, then round the values."""
        kept = top(problem.delta, setting["keep"])
        levels, scales, tuned = fit_values(problem, kept, scaled=self._scaled)
        return Fitted({"levels": record_of(levels), "scales": array_part(scales)}, tuned=tuned)

    def decode(self, parts: Parts, shared: Parts, receiver: Receiver) -> Tensor:  # noqa: ARG002
        """Levels times scales."""
        return values_of(parts, receiver.layout)


def top(delta: Tensor, keep: float) -> Tensor:
    """The fraction `keep` of largest magnitude; zero elsewhere."""
    n_keep = max(1, round(keep * delta.numel()))
    magnitude = delta.abs()
    threshold = magnitude.kthvalue(delta.numel() - n_keep + 1).values
    return torch.where((magnitude >= threshold) & (magnitude > 0), delta, 0.0)
