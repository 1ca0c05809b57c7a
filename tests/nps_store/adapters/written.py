"""Adapters of the zoo's base, in files as peft writes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from pathlib import Path

LORA = {"peft_type": "LORA", "task_type": "SEQ_CLS", "r": 4, "lora_alpha": 8}
IA3 = {"peft_type": "IA3", "task_type": "SEQ_CLS"}
LAYER = "bert.encoder.layer.{}.attention.self.{}"
DIM, RANK, N_LABELS = 32, 4, 3


def lora(**settings: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Settings and tensors of low-rank products of queries and values, with a head."""
    tensors = _head()
    for layer, name in ((0, "query"), (1, "value")):
        module = LAYER.format(layer, name)
        tensors[f"{module}.lora_A.weight"] = torch.randn(RANK, DIM)
        tensors[f"{module}.lora_B.weight"] = torch.randn(DIM, RANK)
    return LORA | settings, tensors


def ia3(**settings: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Settings and tensors of factors on keys and on the inputs of a feedforward layer."""
    tensors = _head()
    tensors[f"{LAYER.format(0, 'key')}.ia3_l"] = 1 + torch.rand(DIM, 1)
    tensors["bert.encoder.layer.1.output.dense.ia3_l"] = 1 + torch.rand(1, 48)
    return IA3 | settings, tensors


def write(directory: Path, settings: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    """A directory as peft writes it."""
    directory.mkdir()
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    named = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    save_file(named, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    return directory


def _head() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {
        "classifier.weight": torch.randn(N_LABELS, DIM),
        "classifier.bias": torch.randn(N_LABELS),
    }
