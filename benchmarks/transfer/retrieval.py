"""What the base can do without any task: find the text that belongs to a text by its embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call
from transformers import AutoModel, AutoTokenizer

from benchmarks.quality.tasks import body_names
from nps_store.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.methods.layout import Layout
    from benchmarks.transfer.docstrings import Pair

MAX_LENGTH = 64
"""Tokens of a text."""
BATCH = 256


@dataclass(frozen=True)
class Found:
    """How well documents are found.

    Attributes:
        recall: Share of queries whose own document comes first (recall@1).
        mrr: Mean reciprocal rank of the own document.
    """

    recall: float
    mrr: float


class Retrieval:
    """The base's encoder with its tokenizer, mean pooling and normalisation, on fixed pairs."""

    def __init__(
        self, base: Path, layout: Layout, pairs: Sequence[Pair], device: str, batch: int = BATCH
    ) -> None:
        """Tokenise once.

        Args:
            base: Directory of the base.
            layout: Of the flat weights to be judged.
            pairs: Queries and their documents; all documents are candidates of every query.
            device: Where the weights lie.
            batch: Texts at a time.
        """
        self._module = AutoModel.from_pretrained(base, dtype="auto").to(device).eval()
        self._module.requires_grad_(requires_grad=False)
        self._names = body_names(self._module, Checkpoint(base))
        self._layout, self._n = layout, len(pairs)
        texts = [pair.query for pair in pairs] + [pair.document for pair in pairs]
        tokenizer = AutoTokenizer.from_pretrained(base)
        limit = min(MAX_LENGTH, self._module.config.max_position_embeddings)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        self._inputs = []
        for start in range(0, len(order), batch):
            chosen = [texts[i] for i in order[start : start + batch]]
            tokens = tokenizer(
                chosen, padding=True, truncation=True, max_length=limit, return_tensors="pt"
            )
            self._inputs.append({name: tensor.to(device) for name, tensor in tokens.items()})
        self._place = torch.tensor(order, device=device).argsort()

    @torch.no_grad()
    def embeddings(self, weights: Tensor) -> Tensor:
        """float32 [2 n, size] of unit length under flat weights: queries, then documents."""
        body = {
            self._names[span.name]: view
            for span, view in self._layout.views(weights)
            if span.name in self._names
        }
        parts = []
        for inputs in self._inputs:
            hidden = functional_call(self._module, body, (), inputs).last_hidden_state.float()
            mask = inputs["attention_mask"][..., None]
            parts.append((hidden * mask).sum(1) / mask.sum(1))
        return torch.nn.functional.normalize(torch.cat(parts)[self._place], dim=-1)

    def scores(self, weights: Tensor) -> Found:
        """Rank every document for every query; ties count as found later."""
        queries, documents = self.embeddings(weights).split(self._n)
        similarity = queries @ documents.T
        own = similarity.diagonal()[:, None]
        rank = self._n - (similarity < own).sum(1).double()  # the last one, if it is no number
        sums = torch.stack([(rank == 1).double().mean(), (1 / rank).mean()])
        return Found(*sums.tolist())
