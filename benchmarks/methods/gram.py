"""Gram matrices of the inputs of linear layers, which several methods weigh errors with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor, nn

    from benchmarks.methods.forward import Batch


@torch.no_grad()
def input_grams(
    layers: Mapping[str, nn.Module], batches: Iterable[Batch], run: Callable[[Batch], object]
) -> dict[str, Tensor]:
    """Sum of x x^T over the inputs x of each layer, padding left out.

    Args:
        layers: Linear layers, by the names of the result.
        batches: What to run on.
        run: One forward pass through a model that has the layers.

    Returns:
        float32 [in, in] a layer, on the layer's device.
    """
    found: dict[str, Tensor] = {}
    mask: list[Tensor] = []

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].float()
            if x.shape[:-1] == mask[0].shape:
                x = x * mask[0][..., None]  # a zero adds nothing, and no size depends on the data
            x = x.reshape(-1, x.shape[-1])
            gram = x.T @ x
            found[name] = found[name] + gram if name in found else gram

        return add

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        for batch in batches:
            mask[:] = [batch.inputs["attention_mask"]]
            run(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found
