"""Random drop and rescale (DARE; Yu et al., 2024). A seed gives the mask, which costs no bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.methods.levels import array_of, array_part, levels_of, record_of
from benchmarks.methods.method import Baseline, Fitted, Parts, Setting
from benchmarks.methods.values import fit_values

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.methods.problem import Problem, Receiver


class Dare(Baseline):
    """Every element kept with probability r and divided by r, plain or with a searched scale."""

    settings = tuple({"keep": keep} for keep in (0.005, 0.01, 0.02, 0.04, 0.1, 0.2, 0.4, 0.8))

    def __init__(self, *, scaled: bool) -> None:
        self.name = "DARE + scale" if scaled else "DARE"
        self._scaled = scaled

    def fit(self, problem: Problem, setting: Setting) -> Fitted:
        """Drop, rescale, then round the values; only kept elements are stored, in order."""
        keep = setting["keep"]
        mask = seeded_mask(problem.receiver, keep).to(problem.delta.device)
        kept = torch.where(mask, problem.delta / keep, 0.0)
        levels, scales, tuned = fit_values(problem, kept, scaled=self._scaled)
        parts = {
            "levels": record_of(levels[mask]),
            "scales": array_part(scales),
            "keep": np.array([keep]),
        }
        return Fitted(parts, tuned=tuned)

    def decode(self, parts: Parts, shared: Parts, receiver: Receiver) -> Tensor:  # noqa: ARG002
        """The mask from the seed, the levels into it."""
        mask = seeded_mask(receiver, float(array_of(parts["keep"])))
        levels = torch.zeros(receiver.layout.numel, dtype=torch.int8)
        levels[mask] = levels_of(parts["levels"])
        return levels * receiver.layout.spread(array_of(parts["scales"]))


def seeded_mask(receiver: Receiver, keep: float | Tensor) -> Tensor:
    """bool [numel], each true with probability `keep`; on the CPU, the same everywhere."""
    return random_mask(receiver.seed, receiver.layout.numel, keep)


def random_mask(seed: int, numel: int, keep: float | Tensor) -> Tensor:
    """bool [numel], each true with probability `keep`; on the CPU, the same everywhere."""
    uniform = np.random.default_rng(seed).random(numel, dtype=np.float32)
    return torch.from_numpy(uniform) < keep
