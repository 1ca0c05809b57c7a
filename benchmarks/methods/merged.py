"""One vector for all tasks of a base, stored once: what the multi-task methods share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.methods.levels import array_part, levels_of, quantize, record_of, tensor_rms
from benchmarks.methods.values import values_of

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.methods.layout import Layout
    from benchmarks.methods.method import Parts

MERGED_STEPS = (3.0, 2.0, 1.0, 0.5, 0.25)
"""Precision of the shared vector, in units of a tensor's root mean square: the rate knob."""


def shared_parts(layout: Layout, merged: Tensor, step: float) -> tuple[Parts, Tensor]:
    """The parts of a merged vector, and the vector as their reader sees it."""
    scales = tensor_rms(layout, merged) * step
    levels = quantize(merged, layout.spread(scales))
    parts: Parts = {"levels": record_of(levels), "scales": array_part(scales)}
    return parts, levels * layout.spread(scales)


def masked(shared: Parts, mask: object, layout: Layout) -> Tensor:
    """The merged vector where the mask is set."""
    return values_of(shared, layout) * levels_of(mask)
