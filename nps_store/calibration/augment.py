"""More texts to learn from: a dense fine-tune answers whatever it is asked, so calibration texts
can be cut and mixed at will. Measured with 350 short texts on three tasks, learning from variations
too loses a fifth to a quarter less of the divergence on new texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

_DROP = 0.2
_SWAP = 0.25


def augment(
    ids: Sequence[Sequence[int]], *, count: int, special: Collection[int], longest: int, seed: int
) -> list[list[int]]:
    """Variations of tokenised texts: two spliced, tokens dropped, or tokens of others put in.

    Special tokens at either end stay where they are.

    Args:
        ids: Token ids of each text.
        count: Texts to make.
        special: Ids of special tokens.
        longest: Tokens a text may have.
        seed: Of the random choices.
    """
    rng = np.random.default_rng(seed)
    parts = [_split(np.asarray(text, dtype=np.int64), set(special)) for text in ids]
    known = np.concatenate([body for _, body, _ in parts])
    made = []
    for _ in range(count):
        head, body, tail = parts[rng.integers(len(parts))]
        body = _vary(body, parts[rng.integers(len(parts))][1], known, rng)
        room = max(longest - len(head) - len(tail), 1)
        made.append([*head.tolist(), *body[:room].tolist(), *tail.tolist()])
    return made


def _split(
    text: NDArray[np.int64], special: set[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    plain = [at for at, token in enumerate(text.tolist()) if token not in special]
    middle = (len(text) + 1) // 2  # of an empty text's special tokens
    start, end = (plain[0], plain[-1] + 1) if plain else (middle, middle)
    return text[:start], text[start:end], text[end:]


def _vary(
    body: NDArray[np.int64],
    other: NDArray[np.int64],
    known: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    way = rng.integers(3)
    if way == 0:
        cut, join = rng.integers(len(body) + 1), rng.integers(len(other) + 1)
        return np.concatenate([body[:cut], other[join:]])
    if way == 1:
        return body[rng.random(len(body)) >= _DROP]
    swapped = rng.random(len(body)) < _SWAP
    return np.where(swapped, rng.choice(known, size=len(body)), body) if len(known) else body
