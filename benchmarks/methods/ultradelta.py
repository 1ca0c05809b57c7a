"""UltraDelta (2025): 4-bit levels, drop rates that differ by a tensor's variance, and a rescale.

The paper drops at random within groups of equal levels. Such a mask would have to be stored; here
it is random within a tensor and comes from a seed, which costs no bytes and, at millions of
elements, drops the same share of every group. The trace-norm rescaler is searched instead.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from benchmarks.methods.dare import seeded_mask
from benchmarks.methods.levels import array_of, array_part, levels_of, record_of, tensor_rms
from benchmarks.methods.method import Baseline, Fitted, Parts, Setting
from benchmarks.methods.tuning import best_scale, least

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.methods.layout import Layout
    from benchmarks.methods.problem import Problem, Receiver

TOP_LEVEL = 7
CLIPS = (3.0, 6.0, 12.0)
"""Largest value that 4 bits reach, in units of a tensor's root mean square."""
SPREADS = (0.0, 0.5)
"""How far the kept share of the tensors of least and most variance differs from the middle's."""


class UltraDelta(Baseline):
    """Clip, spread of the drop rates and scale are searched."""

    name = "UltraDelta"
    settings = tuple({"keep": keep} for keep in (0.01, 0.02, 0.04, 0.1, 0.2, 0.4, 0.6))

    def fit(self, problem: Problem, setting: Setting) -> Fitted:
        """Round to 4 bits, drop, rescale."""
        layout, rms = problem.layout, tensor_rms(problem.layout, problem.delta)
        masks = {}
        for spread in SPREADS:
            keeps = keep_shares(layout, problem.delta, setting["keep"], spread)
            mask = seeded_mask(problem.receiver, layout.spread(keeps)).to(problem.delta.device)
            masks[spread] = mask, keeps.to(problem.delta.device)

        def candidate(clip: float, spread: float) -> tuple[Tensor, Tensor]:
            mask, keeps = masks[spread]
            step = rms * clip / TOP_LEVEL
            safe = layout.spread(step.clamp(min=1e-30))
            levels = (problem.delta / safe).round().clamp(-TOP_LEVEL, TOP_LEVEL)
            return (levels * mask).to(torch.int8), step / keeps

        def delta(choice: tuple[float, float]) -> Tensor:
            levels, scales = candidate(*choice)
            return levels * layout.spread(scales)

        choice, _ = least(itertools.product(CLIPS, SPREADS), lambda c: problem.loss(delta(c)))
        factor, _ = best_scale(problem, delta(choice))
        levels, scales = candidate(*choice)
        mask, keeps = masks[choice[1]]
        parts = {
            "levels": record_of(levels[mask]),
            "scales": array_part(scales * factor),
            "keeps": array_part(keeps),
        }
        tuned = {"clip": choice[0], "spread": choice[1], "factor": factor}
        return Fitted(parts, tuned=tuned)

    def decode(self, parts: Parts, shared: Parts, receiver: Receiver) -> Tensor:  # noqa: ARG002
        """The mask from the seed, the levels into it."""
        layout = receiver.layout
        mask = seeded_mask(receiver, layout.spread(array_of(parts["keeps"])))
        levels = torch.zeros(layout.numel, dtype=torch.int8)
        levels[mask] = levels_of(parts["levels"])
        return levels * layout.spread(array_of(parts["scales"]))


def keep_shares(layout: Layout, delta: Tensor, keep: float, spread: float) -> Tensor:
    """float32 [n_tensors] on the CPU: a third of the tensors, those of most variance, keep more,
    and a third less."""
    variances = [float(tensor.double().square().mean()) for _, tensor in layout.views(delta)]
    order = sorted(range(len(variances)), key=lambda i: variances[i])
    shares = torch.full((len(order),), keep)
    third = len(order) // 3
    shares[order[:third]] = keep * (1 - spread)
    shares[order[len(order) - third :]] = min(keep * (1 + spread), 1.0)
    return shares
