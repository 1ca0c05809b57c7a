"""Weights that stay where tasks can be written into them on the CPU.

vLLM's CPU backend packs the weight of every linear layer and drops the original, so that writing
to it would change nothing. These methods, registered with vLLM as a way of quantisation that
quantises nothing, leave the weights as they are; products are computed from them directly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization import (
    QUANTIZATION_METHODS,
    register_quantization_config,
)
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig
from vllm.model_executor.layers.vocab_parallel_embedding import (
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)

from server.errors import UnsafeLayoutError

if TYPE_CHECKING:
    from torch import nn
    from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase

NAME = "nps_resident"
"""What vLLM is asked for with `--quantization`."""


class ResidentLinearMethod(UnquantizedLinearMethod):
    """A linear layer that computes from its parameter."""

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """Keep the weight."""
        layer.cpu_linear = torch.nn.functional.linear


class ResidentEmbeddingMethod(UnquantizedEmbeddingMethod):
    """An embedding, or an output layer, that computes from its parameter."""

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """Make no packed copy, which a task would not reach."""
        layer.cpu_linear = torch.nn.functional.linear


class ResidentConfig(QuantizationConfig):
    """Every layer unquantised."""

    def get_name(self) -> str:
        """The name it is registered by."""
        return NAME

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        """All that vLLM runs unquantised."""
        return [torch.float32, torch.bfloat16, torch.float16]

    @classmethod
    def get_min_capability(cls) -> int:
        """No GPU is asked for anything."""
        return 0

    @staticmethod
    def get_config_filenames() -> list[str]:
        """Nothing is read from the model's directory."""
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ResidentConfig:  # noqa: ARG003 (vLLM's signature)
        """There is nothing to configure."""
        return cls()

    def get_quant_method(self, layer: nn.Module, prefix: str) -> QuantizeMethodBase | None:  # noqa: ARG002
        """The method of a layer; None for those that keep their weights anyway."""
        if isinstance(layer, LinearBase):
            return ResidentLinearMethod()
        if isinstance(layer, VocabParallelEmbedding):
            return ResidentEmbeddingMethod()
        return None


def register() -> None:
    """Make the method known to vLLM; once more does no harm."""
    if NAME not in QUANTIZATION_METHODS:
        register_quantization_config(NAME)(ResidentConfig)


def check_resident(model: nn.Module) -> None:
    """Refuse a model with a layer that computes from a packed copy of its weight.

    Such a layer was made by a model that does not pass vLLM's quantisation on to it; its parameter
    may well be there too, and hold the right values.

    Raises:
        UnsafeLayoutError: There is one (names the first).
    """
    for name, layer in model.named_modules():
        product = vars(layer).get("cpu_linear", torch.nn.functional.linear)
        if product is not torch.nn.functional.linear:
            raise UnsafeLayoutError(
                f"layer {name!r} computes from a packed copy of its weight, which a task would "
                "not reach",
                hint=f"start vLLM with --quantization {NAME}",
            )
