"""JSON lines of texts as batches of tokens on the model's device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.methods.forward import Batch
from nps_store.calibration import Row, read_rows
from nps_store.modeling.shell import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

BATCH_TOKENS = 8192
MAX_LENGTH = 512


def batches_of(
    path: Path, model: Path, config: PreTrainedConfig, device: str, *, n_rows: int | None = None
) -> list[Batch]:
    """All rows of a file, or the first ones, in batches of similar length.

    Args:
        path: JSON lines of texts, with labels for a classifier.
        model: Directory of the tokenizer.
        config: The model's; a causal language model predicts every next token.
        device: Where the batches go.
        n_rows: How many rows, at most.

    Raises:
        ValueError: A classifier's row has no label, or one that the head lacks.
    """
    rows = read_rows(path)[:n_rows]
    tokenizer = load_tokenizer(model)
    limit = min(config.max_position_embeddings, tokenizer.model_max_length, MAX_LENGTH)
    ids = tokenizer([row.text for row in rows], truncation=True, max_length=limit)["input_ids"]
    is_lm = config.architectures[0].endswith("ForCausalLM")
    batches = []
    for chosen in _by_length(ids):
        inputs = _padded([ids[i] for i in chosen], tokenizer, device)
        if is_lm:
            at = inputs["attention_mask"][:, 1:].bool()
            batches.append(Batch(inputs, inputs["input_ids"][:, 1:][at], at))
        else:
            labels = [_label(rows[i], config, path) for i in chosen]
            batches.append(Batch(inputs, torch.tensor(labels, device=device)))
    return batches


def _by_length(ids: list[list[int]]) -> Iterator[list[int]]:
    batch: list[int] = []
    for index in sorted(range(len(ids)), key=lambda i: len(ids[i])):
        if batch and (len(batch) + 1) * len(ids[index]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    yield batch


def _padded(
    ids: list[list[int]], tokenizer: PreTrainedTokenizerBase, device: str
) -> dict[str, Tensor]:
    length = max(map(len, ids))
    rows = torch.full((len(ids), length), tokenizer.pad_token_id or 0)
    mask = torch.zeros_like(rows)
    for row, tokens in enumerate(ids):
        rows[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return {"input_ids": rows.to(device), "attention_mask": mask.to(device)}


def _label(row: Row, config: PreTrainedConfig, path: Path) -> int:
    if row.label not in config.label2id:
        raise ValueError(f"{path}: label {row.label!r} is none of the head's")
    return int(config.label2id[row.label])
