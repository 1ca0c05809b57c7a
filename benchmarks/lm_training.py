"""Training a small decoder: one loop for the base and its full fine-tunes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.lm_text import START_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

SERVED = torch.bfloat16
"""Models of this kind are served, hence saved and compressed, in bf16; masters are fp32."""
EVAL_BATCH = 64


@dataclass(frozen=True)
class Size:
    """Of the decoder: Llama's architecture, untied, with grouped-query attention."""

    vocab: int = 8192
    context: int = 256
    hidden: int = 512
    layers: int = 10
    heads: int = 8
    kv_heads: int = 2
    mlp: int = 1408

    def config(self) -> LlamaConfig:
        """As transformers has it."""
        return LlamaConfig(
            architectures=["LlamaForCausalLM"],
            vocab_size=self.vocab,
            hidden_size=self.hidden,
            intermediate_size=self.mlp,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=self.context,
            tie_word_embeddings=False,
            bos_token_id=START_ID,
            eos_token_id=START_ID,
            pad_token_id=START_ID,
        )


@dataclass(frozen=True)
class Recipe:
    """AdamW; the learning rate warms up over a tenth of the steps, then falls as a cosine."""

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0
    seed: int = 1


def new_model(size: Size, *, seed: int) -> LlamaForCausalLM:
    """A randomly initialised decoder in fp32."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(size.config())


def load(directory: Path, device: str, dtype: torch.dtype) -> LlamaForCausalLM:
    """A saved model."""
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(directory, dtype=dtype)
    return model.to(device)


def train(
    model: LlamaForCausalLM,
    tokens: Tensor,
    recipe: Recipe,
    report: Callable[[int, Callable[[], float]], None],
) -> None:
    """Train all weights in place, in bf16 autocast on a GPU.

    Every window is cut at random out of `tokens` and begins with the start token, as texts do.

    Args:
        model: fp32, on its device.
        tokens: int32 [n], on the same device.
        recipe: How.
        report: Called with each step and a function that tells its loss (and waits for it).
    """
    context = model.config.max_position_embeddings
    generator = torch.Generator().manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=recipe.weight_decay,
        fused=tokens.is_cuda,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe.steps))
    span = torch.arange(context, device=tokens.device)
    model.train()
    for step in range(recipe.steps):
        starts = torch.randint(len(tokens) - context, (recipe.batch_size, 1), generator=generator)
        batch = tokens[starts.to(tokens.device) + span].long()
        batch[:, 0] = START_ID
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.is_cuda):
            logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]).float(), batch[:, 1:].reshape(-1)
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        report(step, loss.item)
    model.eval()


@torch.inference_mode()
def held_out_loss(model: LlamaForCausalLM, ids: Sequence[Sequence[int]]) -> float:
    """Mean next-token cross entropy in nats over all tokens of the texts."""
    total, count = 0.0, 0
    for start in range(0, len(ids), EVAL_BATCH):
        rows = ids[start : start + EVAL_BATCH]
        length = max(map(len, rows))
        batch = torch.full((len(rows), length), START_ID, dtype=torch.int64)
        for row, tokens in zip(batch, rows, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        targets = batch.clone()
        for row, tokens in zip(targets, rows, strict=True):
            row[len(tokens) :] = -100  # padding stands behind, where causal attention never looks
        logits = model(input_ids=batch.to(model.device), use_cache=False).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]),
            targets[:, 1:].reshape(-1).to(model.device),
            reduction="sum",
        )
        total += float(loss)
        count += sum(len(tokens) - 1 for tokens in rows)
    return total / count


def drift(base: Mapping[str, Tensor], fine_tune: Mapping[str, Tensor]) -> float:
    """|tau| / |theta| over all weights, as they are saved."""
    moved = sum(float((fine_tune[n].double() - w.double()).square().sum()) for n, w in base.items())
    return math.sqrt(moved / sum(float(w.double().square().sum()) for w in base.values()))


def _rate(step: int, steps: int) -> float:
    warm_up = max(1, steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
