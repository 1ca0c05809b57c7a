"""Which texts share a batch: those of similar length, so that little is spent on padding."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def by_length(
    ids: Sequence[Sequence[int]],
    *,
    most_tokens: int,
    most_texts: int = sys.maxsize,
    rng: np.random.Generator | None = None,
) -> list[list[int]]:
    """Indices of tokenised texts, batch by batch.

    Args:
        ids: Token ids of each text.
        most_tokens: Of a batch, padding included; a longer text has a batch of its own.
        most_texts: Of a batch.
        rng: Mixes texts of equal length, which else stay in order.
    """
    order = np.arange(len(ids)) if rng is None else np.argsort(rng.random(len(ids)))
    batches: list[list[int]] = []
    for index in sorted(order.tolist(), key=lambda i: len(ids[i])):
        n_texts = len(batches[-1]) if batches else 0
        if not 0 < n_texts < most_texts or (n_texts + 1) * len(ids[index]) > most_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches
