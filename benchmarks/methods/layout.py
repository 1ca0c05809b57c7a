"""All body weights of a model as one flat vector, which methods work on, and views of its parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Kind = Literal["linear", "embedding", "vector"]


@dataclass(frozen=True)
class Span:
    """One tensor's place in the flat vector.

    Attributes:
        name: As in the base's checkpoint.
        shape: Of the tensor.
        start: Its first element in the flat vector.
        kind: Weight of a linear layer, embedding table, or anything else.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    kind: Kind

    @property
    def numel(self) -> int:
        """Elements of the tensor."""
        return math.prod(self.shape)

    @property
    def place(self) -> slice:
        """Its slice of the flat vector."""
        return slice(self.start, self.start + self.numel)


@dataclass(frozen=True)
class Layout:
    """Where every tensor lies."""

    spans: tuple[Span, ...]

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]], kinds: Mapping[str, Kind]) -> Layout:
        """One tensor behind the other, in the given order."""
        spans, start = [], 0
        for name, shape in shapes.items():
            spans.append(Span(name, tuple(shape), start, kinds.get(name, "vector")))
            start += spans[-1].numel
        return cls(tuple(spans))

    @property
    def numel(self) -> int:
        """Elements in all."""
        return sum(span.numel for span in self.spans)

    def flatten(self, tensors: Mapping[str, Tensor], device: torch.device | str) -> Tensor:
        """float32 [numel] of named tensors."""
        flat = torch.empty(self.numel, device=device)
        for span in self.spans:
            flat[span.place] = tensors[span.name].reshape(-1).to(device, torch.float32)
        return flat

    def views(self, flat: Tensor) -> Iterator[tuple[Span, Tensor]]:
        """Every tensor as a view of the flat vector.

        They are split off at once: the gradient of a slice is as large as the whole vector.
        """
        parts = flat.split([span.numel for span in self.spans])
        for span, part in zip(self.spans, parts, strict=True):
            yield span, part.view(span.shape)

    def spread(self, per_tensor: Tensor) -> Tensor:
        """[n_tensors] to [numel]: every element gets its tensor's value."""
        counts = torch.tensor([span.numel for span in self.spans], device=per_tensor.device)
        return per_tensor.repeat_interleave(counts)


def kinds_of(module: nn.Module) -> dict[str, Kind]:
    """The kind of every parameter, by its name in the module."""
    kinds: dict[str, Kind] = {}
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            kinds[f"{name}.weight"] = "linear"
        elif isinstance(child, nn.Embedding):
            kinds[f"{name}.weight"] = "embedding"
    return kinds
