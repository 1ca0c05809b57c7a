"""A synthetic base and fine-tune in a Llama's shapes: sizes and speed are real, quality is not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from benchmarks.lm_training import SERVED, Size

if TYPE_CHECKING:
    from pathlib import Path

NOISE = 0.01
"""|tau| / |theta| of the fine-tune."""
_SPREAD = 0.02


LARGE = Size(vocab=128256, context=2048, hidden=4096, layers=32, heads=32, kv_heads=8, mlp=14336)
"""8.0 B parameters."""


def make_pair(folder: Path, size: Size, *, device: str = "cpu") -> int:
    """Write `base` and `fine-tune` below a folder in bf16; returns the number of parameters."""
    make_base(folder / "base", size, device=device)
    return _make(folder / "fine-tune", size, noise=NOISE, device=device)


def make_base(folder: Path, size: Size, *, device: str = "cpu") -> int:
    """Write the base alone; returns the number of parameters."""
    return _make(folder, size, noise=0.0, device=device)


def _make(folder: Path, size: Size, *, noise: float, device: str) -> int:
    """One checkpoint; the same base weights at every call on one kind of device."""
    config = size.config()
    config.dtype = SERVED
    config.save_pretrained(folder)
    weight_map, total = {}, 0
    for number, shapes in enumerate(shards(size)):
        generator = torch.Generator(device).manual_seed(number)
        shard = f"model-{number:05d}.safetensors"
        tensors = {}
        for name, shape in shapes.items():
            weights, change = (
                torch.randn(shape, generator=generator, device=device) * _SPREAD for _ in range(2)
            )
            tensors[name] = (weights + noise * change).to(SERVED).cpu()
        save_file(tensors, folder / shard, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, shard))
        total += sum(tensor.numel() for tensor in tensors.values())
    index = {"metadata": {"total_size": 2 * total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def shards(size: Size) -> list[dict[str, tuple[int, ...]]]:
    """Shapes of the tensors, a layer a shard, embeddings and head in the last."""
    return [*(_layer(size, number) for number in range(size.layers)), _ends(size)]


def _layer(size: Size, number: int) -> dict[str, tuple[int, ...]]:
    prefix, kv = f"model.layers.{number}", size.hidden // size.heads * size.kv_heads
    return {
        f"{prefix}.self_attn.q_proj.weight": (size.hidden, size.hidden),
        f"{prefix}.self_attn.k_proj.weight": (kv, size.hidden),
        f"{prefix}.self_attn.v_proj.weight": (kv, size.hidden),
        f"{prefix}.self_attn.o_proj.weight": (size.hidden, size.hidden),
        f"{prefix}.mlp.gate_proj.weight": (size.mlp, size.hidden),
        f"{prefix}.mlp.up_proj.weight": (size.mlp, size.hidden),
        f"{prefix}.mlp.down_proj.weight": (size.hidden, size.mlp),
        f"{prefix}.input_layernorm.weight": (size.hidden,),
        f"{prefix}.post_attention_layernorm.weight": (size.hidden,),
    }


def _ends(size: Size) -> dict[str, tuple[int, ...]]:
    return {
        "model.embed_tokens.weight": (size.vocab, size.hidden),
        "model.norm.weight": (size.hidden,),
        "lm_head.weight": (size.vocab, size.hidden),
    }
