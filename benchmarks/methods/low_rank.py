"""Truncated singular value decompositions, their vectors rounded to a number of bits a component.

Plain: every vector in 8 bits. Mixed precision in the manner of Delta-CoMe (Ping et al., 2024): the
first components in 8 bits, the next in 3, the rest in 2. Ranks follow from one cut for the whole
model on s^2 / (m + n), what a component explains by what it costs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.methods.levels import array_of, array_part, levels_of, record_of
from benchmarks.methods.method import Baseline, Fitted, Parts, Setting
from benchmarks.methods.small_tensors import add_small_, small_delta, small_parts
from benchmarks.methods.tuning import best_scale

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.methods.layout import Layout, Span
    from benchmarks.methods.problem import Problem, Receiver

CLIPS = (1.0, 0.8, 0.6, 0.45, 0.35, 0.25)
MIXED_BITS = ((2, 8), (34, 3), (1 << 30, 2))
"""Components below each bound take that many bits (their table 3)."""


class LowRank(Baseline):
    """The share of numbers kept is the rate knob; one scale on all of them is searched."""

    def __init__(self, *, mixed: bool) -> None:
        self.name = "Delta-CoMe" if mixed else "SVD 8 bit"
        self._bits = MIXED_BITS if mixed else ((1 << 30, 8),)
        shares = (0.02, 0.05, 0.1, 0.2, 0.4) if mixed else (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
        self.settings = tuple({"share": share} for share in shares)

    def fit(self, problem: Problem, setting: Setting) -> Fitted:
        """Cut, round, scale."""
        layout = problem.layout
        spans = matrices(layout)
        names = {span.name for span in spans}
        factors = _factors(problem)
        ranks = cut(spans, [s for _, s, _ in factors], setting["share"] * layout.numel)
        rows: dict[int, list[Tensor]] = {bits: [] for _, bits in self._bits}
        scales: list[Tensor] = []
        delta = small_delta(layout, problem.delta, names)
        for span, (u, s, v), rank in zip(spans, factors, ranks, strict=True):
            root = s[:rank].sqrt()
            sides = []
            for vectors in ((u[:, :rank] * root).T, root[:, None] * v[:rank]):
                levels, scale = self._rounded(vectors.contiguous())
                for component in range(rank):
                    rows[self._bits_of(component)].append(levels[component])
                scales.append(scale[:, 0].half())
                sides.append(levels * scale)
            delta[span.place] = (sides[0].T @ sides[1]).reshape(-1)
        factor, _ = best_scale(problem, delta)
        parts: Parts = {
            "ranks": np.array(ranks, np.int16),
            "scales": array_part(torch.cat(scales)),
            "factor": np.array([factor]),
        }
        for bits, found in rows.items():
            if found:
                parts[f"levels{bits}"] = record_of(torch.cat(found))
        return Fitted(parts | small_parts(layout, problem.delta, names), tuned={"factor": factor})

    def decode(self, parts: Parts, shared: Parts, receiver: Receiver) -> Tensor:  # noqa: ARG002
        """Products of the rounded vectors, summed in double precision."""
        layout = receiver.layout
        spans = matrices(layout)
        ranks = array_of(parts["ranks"]).tolist()
        scales = array_of(parts["scales"]).double()
        levels = {
            bits: levels_of(parts[f"levels{bits}"])
            for _, bits in self._bits
            if f"levels{bits}" in parts
        }
        used = dict.fromkeys(levels, 0)
        delta = torch.zeros(layout.numel)
        add_small_(delta, layout, parts, {span.name for span in spans})
        row = 0
        for span, rank in zip(spans, ranks, strict=True):
            sides = []
            for length in span.shape:
                vectors = torch.empty(rank, length, dtype=torch.float64)
                for component in range(rank):
                    bits = self._bits_of(component)
                    vectors[component] = levels[bits][used[bits] : used[bits] + length]
                    used[bits] += length
                sides.append(vectors * scales[row : row + rank, None])
                row += rank
            delta[span.place] = (sides[0].T @ sides[1]).float().reshape(-1)
        return (delta * array_of(parts["factor"])).float()

    def _bits_of(self, component: int) -> int:
        return next(bits for bound, bits in self._bits if component < bound)

    def _rounded(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Levels and scales [rank, 1] of vectors [rank, n], each row in its number of bits."""
        tops = [2 ** (self._bits_of(i) - 1) - 1 for i in range(len(vectors))]
        top = torch.tensor(tops, device=vectors.device, dtype=torch.float32)[:, None]
        return round_rows(vectors, top)


def matrices(layout: Layout) -> list[Span]:
    """The spans that are decomposed."""
    return [span for span in layout.spans if span.kind != "vector"]


def cut(spans: list[Span], singular: list[Tensor], budget: float) -> list[int]:
    """Rank of every matrix, so that the numbers kept stay within the budget."""
    costs = [sum(span.shape) for span in spans]
    worth = torch.cat([s.square() / cost for s, cost in zip(singular, costs, strict=True)])
    owner = torch.cat([torch.full((len(s),), i) for i, s in enumerate(singular)])
    order = worth.cpu().argsort(descending=True)
    total = torch.tensor(costs)[owner[order]].cumsum(0)
    chosen = owner[order[: max(1, int((total <= budget).sum()))]]
    return torch.bincount(chosen, minlength=len(spans)).tolist()


def round_rows(vectors: Tensor, top_level: Tensor) -> tuple[Tensor, Tensor]:
    """int8 levels and float32 scales [rows, 1], exact in f16, of least squared error a row."""
    peak = vectors.abs().amax(1, keepdim=True)
    best = torch.full_like(peak, torch.inf)
    scale, levels = torch.ones_like(peak), torch.zeros_like(vectors)
    for clip in CLIPS:
        tried = (peak * clip / top_level).half().float().clamp(min=6e-8)
        rounded = (vectors / tried).round().clamp(-top_level, top_level)
        error = (vectors - rounded * tried).square().sum(1, keepdim=True)
        better = error < best
        scale, levels = torch.where(better, tried, scale), torch.where(better, rounded, levels)
        best = torch.minimum(error, best)
    return levels.to(torch.int8), scale


@lru_cache(maxsize=1)
def _factors(problem: Problem) -> list[tuple[Tensor, Tensor, Tensor]]:
    """U [m, k], s [k], V [k, n] of every matrix, by the eigenvectors of the smaller Gram matrix."""
    return [
        decompose(problem.delta[span.place].view(span.shape)) for span in matrices(problem.layout)
    ]


def decompose(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition, float32, largest first."""
    if matrix.shape[0] < matrix.shape[1]:
        u, s, v = decompose(matrix.T)
        return v.T, s, u.T
    wide = matrix.double()
    squares, vectors = torch.linalg.eigh(wide.T @ wide)
    s = squares.flip(0).clamp(min=0).sqrt()
    v = vectors.flip(1)
    u = wide @ v / s.clamp(min=1e-30)
    return u.float(), s.float(), v.T.float()
