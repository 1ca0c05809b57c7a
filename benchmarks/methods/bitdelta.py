"""BitDelta (Liu et al., 2024): one sign bit an element and a scale a matrix, which is distilled.

The paper leaves embeddings and norms as they are. Here norms and biases take 8 bits, and embeddings
are either left at the base or get signs with a scale a row, since most rows do not change at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.methods.levels import array_of, array_part
from benchmarks.methods.method import Baseline, Fitted, Parts, Setting
from benchmarks.methods.small_tensors import add_small_, small_delta, small_parts

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.methods.layout import Layout, Span
    from benchmarks.methods.problem import Problem, Receiver

STEPS = 60
LEARNING_RATE = 0.02


@dataclass
class _Plane:
    """One sign bit of every element of the handled matrices, with its scales."""

    signs: list[Tensor]
    scales: list[Tensor]

    def value(self, number: int) -> Tensor:
        return self.signs[number] * self.scales[number]


class BitDelta(Baseline):
    """One or two bits an element; the second is the sign of what the first leaves over."""

    name = "BitDelta"
    settings = (
        {"bits": 1, "embeddings": False},
        {"bits": 1, "embeddings": True},
        {"bits": 2, "embeddings": False},
        {"bits": 2, "embeddings": True},
    )

    def fit(self, problem: Problem, setting: Setting) -> Fitted:
        """Signs, least-squares scales, then Adam on a factor a matrix and bit."""
        layout, delta = problem.layout, problem.delta
        spans = matrices(layout, embeddings=setting["embeddings"])
        names = {span.name for span in spans}
        rest = [delta[span.place].view(span.shape) for span in spans]
        planes = []
        for _ in range(setting["bits"]):
            plane = _Plane(
                [torch.where(r < 0, -1.0, 1.0) for r in rest],
                [_mean_magnitude(r, span) for r, span in zip(rest, spans, strict=True)],
            )
            planes.append(plane)
            rest = [r - plane.value(i) for i, r in enumerate(rest)]
        factors, loss = distill(problem, spans, planes, small_delta(layout, delta, names))
        parts: Parts = {"settings": np.array([setting["bits"], setting["embeddings"]], np.uint8)}
        for number, plane in enumerate(planes):
            negative = torch.cat([sign.reshape(-1) < 0 for sign in plane.signs])
            parts[f"signs{number}"] = np.packbits(array_part(negative), bitorder="little")
            scales = [
                (scale * factor).reshape(-1).half()
                for scale, factor in zip(plane.scales, factors[number], strict=True)
            ]
            parts[f"scales{number}"] = array_part(torch.cat(scales))
        parts |= small_parts(layout, delta, names)
        return Fitted(parts, tuned={"loss": loss})

    def decode(self, parts: Parts, shared: Parts, receiver: Receiver) -> Tensor:  # noqa: ARG002
        """Signs times scales, bit by bit."""
        layout = receiver.layout
        bits, embeddings = array_of(parts["settings"]).tolist()
        spans = matrices(layout, embeddings=bool(embeddings))
        delta = torch.zeros(layout.numel)
        for number in range(bits):
            packed = array_of(parts[f"signs{number}"]).numpy()
            negative = torch.from_numpy(np.unpackbits(packed, bitorder="little").astype(np.bool_))
            scales = array_of(parts[f"scales{number}"]).float()
            element = row = 0
            for span in spans:
                n_scales = _n_scales(span)
                sign = torch.where(negative[element : element + span.numel], -1.0, 1.0)
                scale = scales[row : row + n_scales, None]
                delta[span.place] += (sign.view(n_scales, -1) * scale).reshape(-1)
                element, row = element + span.numel, row + n_scales
        add_small_(delta, layout, parts, {span.name for span in spans})
        return delta


def matrices(layout: Layout, *, embeddings: bool) -> list[Span]:
    """The spans that get sign bits."""
    wanted = ("linear", "embedding") if embeddings else ("linear",)
    return [span for span in layout.spans if span.kind in wanted]


def distill(
    problem: Problem, spans: list[Span], planes: list[_Plane], fixed: Tensor
) -> tuple[Tensor, float]:
    """Factors [n_bits, n_spans] on the scales of least loss on the calibration data."""
    logs = torch.zeros(len(planes), len(spans), device=fixed.device, requires_grad=True)

    def weights() -> Tensor:
        delta = problem.base + fixed
        parts, end = [], 0
        for i, span in enumerate(spans):
            value = sum(
                (p.value(i) * logs[b, i].exp() for b, p in enumerate(planes)),
                start=torch.zeros((), device=fixed.device),
            )
            parts += [delta[end : span.start], delta[span.place] + value.reshape(-1)]
            end = span.start + span.numel
        return torch.cat([*parts, delta[end:]])

    optimizer = torch.optim.Adam([logs], lr=LEARNING_RATE)
    best, best_loss = torch.zeros_like(logs), float("inf")
    n_batches = len(problem.calibration.batches)
    for step in range(STEPS):
        with torch.enable_grad():
            loss = problem.calibration.divergence(weights(), step % n_batches)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if step % 10 == 0 or step == STEPS - 1:
            with torch.no_grad():
                measured = problem.calibration.loss(weights())
            if measured < best_loss:
                best, best_loss = logs.detach().clone(), measured
        optimizer.step()
    return best.exp(), best_loss


def _n_scales(span: Span) -> int:
    return span.shape[0] if span.kind == "embedding" else 1


def _mean_magnitude(matrix: Tensor, span: Span) -> Tensor:
    return matrix.abs().mean(1, keepdim=True) if span.kind == "embedding" else matrix.abs().mean()
