"""DeltaZip (Yao et al., 2024): 2 of 4 elements kept, in few bits, solved with calibration inputs.

Linear layers go through the SparseGPT solver as in the paper. Its embeddings stay uncompressed;
here they are left at the base, or take 2:4 by magnitude. Norms and biases take 8 bits.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.methods.levels import array_of, array_part, levels_of, record_of
from benchmarks.methods.method import Baseline, Fitted, Parts, Setting
from benchmarks.methods.obs import GROUP, hessians, solve, two_of_four
from benchmarks.methods.small_tensors import add_small_, small_parts
from formats.records import DenseLevels

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.methods.layout import Layout, Span
    from benchmarks.methods.problem import Problem, Receiver

PATTERNS = torch.tensor(list(combinations(range(GROUP), 2)))
CLIPS = (1.0, 0.8, 0.6, 0.45, 0.35, 0.25)


class DeltaZip(Baseline):
    """The number of bits is the rate knob."""

    name = "DeltaZip 2:4"
    settings = tuple(
        {"bits": bits, "embeddings": embeddings}
        for embeddings in (False, True)
        for bits in (2, 3, 4)
    )

    def fit(self, problem: Problem, setting: Setting) -> Fitted:
        """Solve every linear layer, then code patterns and levels apart."""
        spans = matrices(problem.layout, embeddings=setting["embeddings"])
        inputs = _hessians(problem)
        top_level = 2 ** (setting["bits"] - 1) - 1
        patterns, levels, scales = [], [], []
        for span in spans:
            delta = problem.delta[span.place].view(span.shape)
            scale = row_scales(delta, top_level)
            if span.kind == "linear":
                level, kept = solve(delta, inputs[span.name], scale, top_level)
            else:
                kept = two_of_four(delta)
                level = (delta / scale).round().clamp(-top_level, top_level).to(torch.int8)
            groups = kept.view(-1, GROUP)
            patterns.append(_pattern_of(groups))
            levels.append(level.view(-1, GROUP)[groups])
            scales.append(scale[:, 0].half())
        parts: Parts = {
            "embeddings": np.array([setting["embeddings"]], np.uint8),
            "patterns": _dense(torch.cat(patterns)),
            "levels": record_of(torch.cat(levels)),
            "scales": array_part(torch.cat(scales)),
        }
        parts |= small_parts(problem.layout, problem.delta, {span.name for span in spans})
        return Fitted(parts)

    def decode(self, parts: Parts, shared: Parts, receiver: Receiver) -> Tensor:  # noqa: ARG002
        """Two levels into every group, times the row's scale."""
        layout = receiver.layout
        spans = matrices(layout, embeddings=bool(array_of(parts["embeddings"])))
        places = PATTERNS[levels_of(parts["patterns"]).long()]
        groups = torch.zeros(len(places), GROUP, dtype=torch.int8)
        groups.scatter_(1, places, levels_of(parts["levels"]).view(-1, 2))
        levels, scales = groups.reshape(-1), array_of(parts["scales"]).float()
        delta = torch.zeros(layout.numel)
        element = row = 0
        for span in spans:
            own = levels[element : element + span.numel].view(span.shape)
            scale = scales[row : row + span.shape[0], None]
            delta[span.place] = (own * scale).reshape(-1)
            element, row = element + span.numel, row + span.shape[0]
        add_small_(delta, layout, parts, {span.name for span in spans})
        return delta


def matrices(layout: Layout, *, embeddings: bool) -> list[Span]:
    """The spans whose rows divide into groups of four."""
    wanted = ("linear", "embedding") if embeddings else ("linear",)
    return [s for s in layout.spans if s.kind in wanted and s.shape[1] % GROUP == 0]


def row_scales(delta: Tensor, top_level: int) -> Tensor:
    """float32 [rows, 1], exact in f16, of least squared error on what 2:4 by magnitude keeps."""
    kept = torch.where(two_of_four(delta), delta, 0.0)
    peak = kept.abs().amax(1, keepdim=True).clamp(min=1e-7 * top_level)
    best = torch.full_like(peak, torch.inf)
    scale = peak / top_level
    for clip in CLIPS:
        tried = (peak * clip / top_level).half().float().clamp(min=6e-8)
        rounded = (kept / tried).round().clamp(-top_level, top_level) * tried
        error = (kept - rounded).square().sum(1, keepdim=True)
        scale = torch.where(error < best, tried, scale)
        best = torch.minimum(error, best)
    return scale


@lru_cache(maxsize=1)
def _hessians(problem: Problem) -> dict[str, Tensor]:
    return hessians(problem, matrices(problem.layout, embeddings=False))


def _pattern_of(kept: Tensor) -> Tensor:
    """int8 [n]: which two of every four are kept."""
    table = torch.zeros(1 << GROUP, dtype=torch.int8)
    for number, (first, second) in enumerate(PATTERNS.tolist()):
        table[(1 << first) | (1 << second)] = number
    powers = (1 << torch.arange(GROUP, device=kept.device)).to(torch.int64)
    return table.to(kept.device)[(kept * powers).sum(1)]


def _dense(levels: Tensor) -> DenseLevels:
    flat = array_part(levels)
    return DenseLevels(flat.size, flat, np.ones(1, np.float32))
