"""Task vectors for the search: arrays, as the search sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from formats.dither import tensor_seed, uniform
from nps_store.search.pool import collect
from nps_store.search.selection import Selector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from nps_store.search import Rule

SEED = "7:task"


class Vectors:
    """Named flat float32 arrays; heavy tails, and zeros where asked."""

    def __init__(self, sizes: tuple[int, ...] = (400, 1, 900), *, seed: int = 0, zeros=0.0) -> None:
        rng = np.random.default_rng(seed)
        self.arrays = {}
        for number, size in enumerate(sizes):
            values = rng.standard_normal(size) * np.exp(rng.standard_normal(size)) * 1e-3
            values[rng.random(size) < zeros] = 0
            self.arrays[f"tensor.{number}"] = values.astype(np.float32)

    def __call__(self) -> Iterator[tuple[str, Tensor]]:
        for name, array in self.arrays.items():
            yield name, torch.from_numpy(array)

    @property
    def flat(self) -> NDArray[np.float32]:
        return np.concatenate(list(self.arrays.values()))

    @property
    def u(self) -> NDArray[np.float32]:
        return np.concatenate(
            [uniform(tensor_seed(SEED, n), 0, len(a)) for n, a in self.arrays.items()]
        )


def selector(vectors: Vectors, rule: Rule, max_keep: int, *, seed: str = SEED) -> Selector:
    return Selector(collect(vectors, rule=rule, max_keep=lambda _: max_keep, seed=seed))


def flat_positions(vectors: Vectors, selection) -> NDArray[np.int64]:
    """Positions of what is kept in the concatenation of all tensors."""
    starts = np.cumsum([0, *map(len, vectors.arrays.values())])
    start_of = dict(zip(vectors.arrays, starts, strict=False))
    found = [start_of[name] + positions.numpy() for name, _, positions in selection.tensors()]
    return np.concatenate([np.empty(0, np.int64), *found])


def dense(vectors: Vectors, selection) -> NDArray[np.float32]:
    """The stored delta as one array."""
    made = np.zeros(len(vectors.flat), dtype=np.float32)
    made[flat_positions(vectors, selection)] = selection.values.numpy()
    return made
