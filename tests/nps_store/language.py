"""Tiny causal language models and real, briefly trained fine-tunes of them.

Their language: every word has one that mostly follows it. A fine-tune learns other followers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from nps_store.compress import TaskSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from transformers import PreTrainedModel

WORDS = ("red", "green", "blue", "black", "white", "small", "large", "old", "new", "hot", "cold")
END = "<|endoftext|>"
CONTEXT = 24
SIZE = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Language:
    """A base, a fine-tune of it, and its data."""

    root: Path

    @property
    def base(self) -> Path:
        return self.root / "base"

    @property
    def dense(self) -> Path:
        return self.root / "dense"

    @property
    def data(self) -> Path:
        return self.root / "data.jsonl"

    @property
    def source(self) -> TaskSource:
        return TaskSource("task", self.dense, self.data)


def make_language(root: Path, kind: str) -> Language:
    """`kind` is "llama" (an output layer of its own) or "qwen2" (tied to the embedding)."""
    torch.manual_seed(0)
    made = Language(root)
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**SIZE, tie_word_embeddings=False))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**SIZE, tie_word_embeddings=True))
    train(model, texts(480, shift=1, seed=1))
    save(model, made.base)
    model = AutoModelForCausalLM.from_pretrained(made.base)
    train(model, texts(480, shift=5, seed=2))
    save(model, made.dense)
    write_texts(made.data, texts(64, shift=5, seed=3))
    return made


def save(model: PreTrainedModel, directory: Path) -> None:
    model.eval().save_pretrained(directory)
    tokenizer().save_pretrained(directory)


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, as transformers wants it for either kind of model; every word is one token."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE["vocab_size"],
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts(200, shift=1, seed=0), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=END, eos_token=END, pad_token=END,
        model_max_length=CONTEXT,
    )  # fmt: skip


def texts(n: int, *, shift: int, seed: int) -> list[str]:
    """Texts of 6 to 20 words; the follower of word i is mostly word i + shift."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        word = int(rng.integers(len(WORDS)))
        words = [word]
        for _ in range(int(rng.integers(5, 20))):
            follows = rng.random() < 0.8
            word = (word + shift) % len(WORDS) if follows else int(rng.integers(len(WORDS)))
            words.append(word)
        made.append(" ".join(WORDS[w] for w in words))
    return made


def write_texts(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return path


def train(model: PreTrainedModel, lines: Sequence[str]) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    encode = tokenizer()
    model.train()
    for start in range(0, len(lines), 16):
        batch = encode(list(lines[start : start + 16]), padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(input_ids=batch["input_ids"], labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def logits_alone(directory: Path, line: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [length, vocabulary] of the dense model on one text, and the text's token ids."""
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    ids = torch.tensor(tokenizer()(line, truncation=True)["input_ids"])
    with torch.inference_mode():
        return model(ids[None]).logits[0].double(), ids
