"""One uniform number per element, from a hash: the same on every machine, chunking and shard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xxhash

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def uniform(seed: str, tensor: str, start: int, count: int) -> NDArray[np.float32]:
    """Uniform numbers in (0, 1) of the elements `start .. start + count` of a tensor.

    SplitMix64 (Steele, Lea and Flood, 2014) of the flat index, keyed by xxh64 of seed and tensor
    name. Values are odd multiples of 2**-24: never 0, never 1, exact in float32.

    Returns:
        float32 [count].
    """
    key = np.uint64(xxhash.xxh64_intdigest(f"{seed}\0{tensor}".encode()))
    z = np.arange(start + 1, start + 1 + count, dtype=np.uint64)
    z *= _GOLDEN
    z += key
    z ^= z >> np.uint64(30)
    z *= _MIX_1
    z ^= z >> np.uint64(27)
    z *= _MIX_2
    z ^= z >> np.uint64(31)
    odd = (z >> np.uint64(40)).astype(np.uint32) | np.uint32(1)
    return odd.astype(np.float32) * np.float32(2.0**-24)
