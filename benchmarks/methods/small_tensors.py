"""Biases, norms and the like in 8 bits, for methods that are made for matrices only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.methods.levels import array_of, array_part, levels_of, quantize, record_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import Tensor

    from benchmarks.methods.layout import Layout, Span
    from benchmarks.methods.method import Parts


def others(layout: Layout, handled: Collection[str]) -> list[Span]:
    """The spans that a method does not handle itself, embeddings that it leaves out excepted."""
    return [s for s in layout.spans if s.name not in handled and s.kind == "vector"]


def small_parts(layout: Layout, delta: Tensor, handled: Collection[str]) -> Parts:
    """Parts of the tensors beside the handled ones: int8 with a scale a tensor."""
    spans = others(layout, handled)
    if not spans:
        return {}
    scales = torch.stack([delta[span.place].abs().amax() / 127 for span in spans])
    levels = [
        quantize(delta[span.place], scale.expand(span.numel))
        for span, scale in zip(spans, scales, strict=True)
    ]
    return {"small": record_of(torch.cat(levels)), "small_scales": array_part(scales)}


def add_small_(delta: Tensor, layout: Layout, parts: Parts, handled: Collection[str]) -> None:
    """Put them into a decoded vector."""
    spans = others(layout, handled)
    if not spans:
        return
    levels, scales = levels_of(parts["small"]), array_of(parts["small_scales"])
    start = 0
    for span, scale in zip(spans, scales, strict=True):
        delta[span.place] = levels[start : start + span.numel] * scale
        start += span.numel


def small_delta(layout: Layout, delta: Tensor, handled: Collection[str]) -> Tensor:
    """What a reader will see of them, zero elsewhere, on the delta's device."""
    decoded = torch.zeros(layout.numel)
    add_small_(decoded, layout, small_parts(layout, delta, handled), handled)
    return decoded.to(delta.device)
