"""A synthetic base and fine-tune in a Llama's shapes: sizes and speed are real, quality is not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from pathlib import Path

NOISE = 0.01
"""|tau| / |theta| of the fine-tune."""
_SPREAD = 0.02


@dataclass(frozen=True)
class Shape:
    """Of a Llama; these are the sizes of the one with 8.0 B parameters."""

    layers: int = 32
    hidden: int = 4096
    mlp: int = 14336
    heads: int = 32
    kv_heads: int = 8
    vocabulary: int = 128256

    def config(self) -> dict[str, object]:
        """As Hugging Face names it."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.mlp,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary,
            "torch_dtype": "bfloat16",
        }

    def shards(self) -> list[dict[str, tuple[int, ...]]]:
        """Shapes of the tensors, a layer a shard, embeddings and head in the last."""
        return [*map(self._layer, range(self.layers)), self._ends()]

    def _layer(self, number: int) -> dict[str, tuple[int, ...]]:
        prefix, kv = f"model.layers.{number}", self.hidden // self.heads * self.kv_heads
        return {
            f"{prefix}.self_attn.q_proj.weight": (self.hidden, self.hidden),
            f"{prefix}.self_attn.k_proj.weight": (kv, self.hidden),
            f"{prefix}.self_attn.v_proj.weight": (kv, self.hidden),
            f"{prefix}.self_attn.o_proj.weight": (self.hidden, self.hidden),
            f"{prefix}.mlp.gate_proj.weight": (self.mlp, self.hidden),
            f"{prefix}.mlp.up_proj.weight": (self.mlp, self.hidden),
            f"{prefix}.mlp.down_proj.weight": (self.hidden, self.mlp),
            f"{prefix}.input_layernorm.weight": (self.hidden,),
            f"{prefix}.post_attention_layernorm.weight": (self.hidden,),
        }

    def _ends(self) -> dict[str, tuple[int, ...]]:
        return {
            "model.embed_tokens.weight": (self.vocabulary, self.hidden),
            "model.norm.weight": (self.hidden,),
            "lm_head.weight": (self.vocabulary, self.hidden),
        }


def make_pair(folder: Path, shape: Shape, *, device: str = "cpu") -> int:
    """Write `base` and `fine-tune` below a folder in bf16; returns the number of parameters."""
    _make(folder / "base", shape, noise=0.0, device=device)
    return _make(folder / "fine-tune", shape, noise=NOISE, device=device)


def _make(folder: Path, shape: Shape, *, noise: float, device: str) -> int:
    """One checkpoint; the same base weights at every call on one kind of device."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(shape.config()))
    weight_map, total = {}, 0
    for number, shapes in enumerate(shape.shards()):
        generator = torch.Generator(device).manual_seed(number)
        shard = f"model-{number:05d}.safetensors"
        tensors = {}
        for name, size in shapes.items():
            weights, change = (
                torch.randn(size, generator=generator, device=device) * _SPREAD for _ in range(2)
            )
            tensors[name] = (weights + noise * change).to(torch.bfloat16).cpu()
        save_file(tensors, folder / shard, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, shard))
        total += sum(tensor.numel() for tensor in tensors.values())
    index = {"metadata": {"total_size": 2 * total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total
