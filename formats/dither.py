"""The pseudo-random numbers of dithered selection, one per element of a tensor.

Selection keeps the elements whose number is small beside their magnitude, so who knows the numbers
can code the kept positions in fewer bits. Within a block of 65,536 elements the numbers are a keyed
permutation, and a permutation can be run backwards: the elements of the smallest numbers are found
without looking at the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xxhash

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 1 << 16
N_ROUNDS = 4
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFT = np.uint16(7)
_COUNTERS = np.array([[1], [2]], np.uint64)
_WORD_SHIFTS = np.array([[0], [16], [32], [48]], np.uint64)


def tensor_seed(dither: str, name: str) -> int:
    """Seed of a tensor: xxh3-64, seed 0, of the UTF-8 of ``dither``, a zero byte and ``name``.

    Args:
        dither: Names the numbers of a task; other tasks should use others.
        name: Of the base's tensor.

    Returns:
        0 to 2**64 - 1.
    """
    return xxhash.xxh3_64_intdigest(f"{dither}\0{name}".encode())


def uniform(seed: int, start: int, n: int) -> NDArray[np.float32]:
    """Numbers of the elements ``start`` to ``start + n`` of a flat tensor, any start.

    Returns:
        float32[n], odd multiples of 2**-17: exact, above 0 and below 1.
    """
    numbers = np.empty(n, np.float32)
    at = 0
    while at < n:
        block, offset = divmod(start + at, BLOCK)
        count = min(BLOCK - offset, n - at)
        numbers[at : at + count] = ranks(seed, block, start=offset, n=count)
        at += count
    numbers += np.float32(0.5)
    numbers *= np.float32(1 / BLOCK)
    return numbers


def ranks(seed: int, block: int, *, start: int = 0, n: int) -> NDArray[np.uint16]:
    """Ranks of the offsets ``start`` to ``start + n`` of a block.

    An element's number is ``(rank + 1/2) / 65536``.

    Returns:
        uint16[n].
    """
    x = np.arange(start, start + n, dtype=np.uint16)
    permute_(x, keys(seed, np.array([block])))
    return x


def offsets(seed: int, block: int, *, n: int) -> NDArray[np.uint16]:
    """Offsets of the ranks 0 to ``n``, the inverse of :func:`ranks`.

    Returns:
        uint16[n]; in a short last block some do not exist.
    """
    x = np.arange(n, dtype=np.uint16)
    unpermute_(x, keys(seed, np.array([block])))
    return x


def ranks_of(seed: int, positions: NDArray[np.int64]) -> NDArray[np.uint16]:
    """uint16[n] ranks, each within its block, of scattered positions of a flat tensor."""
    x = positions.astype(np.uint16)  # the low 16 bits are the offset
    permute_(x, keys(seed, positions >> 16))
    return x


def positions_of(
    seed: int, blocks: NDArray[np.int64], ranks: NDArray[np.uint16]
) -> NDArray[np.int64]:
    """int64[n] flat positions of scattered ranks of blocks, the inverse of :func:`ranks_of`."""
    x = ranks.copy()
    unpermute_(x, keys(seed, blocks))
    return (blocks << 16) + x


def keys(seed: int, blocks: NDArray[np.integer]) -> NDArray[np.uint16]:
    """Constants of the permutations of some blocks.

    Block ``b`` takes outputs ``2 b`` and ``2 b + 1`` of SplitMix64 (Steele, Lea and Flood, 2014)
    started at ``seed``; their 16-bit words, lowest first, are the terms and the factors.

    Returns:
        uint16[2, N_ROUNDS, n]: what each round xors, and what it multiplies by, which is odd.
    """
    z = 2 * blocks.astype(np.uint64) + _COUNTERS
    z *= _GOLDEN
    z += np.uint64(seed)
    z = (z ^ z >> np.uint64(30)) * _MIX_1
    z = (z ^ z >> np.uint64(27)) * _MIX_2
    z ^= z >> np.uint64(31)
    words = (z[:, None, :] >> _WORD_SHIFTS).astype(np.uint16)
    words[1] |= np.uint16(1)
    return words


def permute_(x: NDArray[np.uint16], constants: NDArray[np.uint16]) -> None:
    """Turns offsets into ranks in place; ``constants`` of :func:`keys` broadcast against ``x``.

    A round is ``x ^= term; x ^= x >> 7; x *= factor``; behind the last one comes ``x ^= x >> 7``.
    """
    shifted = np.empty_like(x)
    for term, factor in zip(*constants, strict=True):
        x ^= term
        x ^= np.right_shift(x, _SHIFT, out=shifted)
        x *= factor
    x ^= np.right_shift(x, _SHIFT, out=shifted)


def unpermute_(x: NDArray[np.uint16], constants: NDArray[np.uint16]) -> None:
    """Turns ranks into offsets in place, the inverse of :func:`permute_`."""
    shifted = np.empty_like(x)
    _unshift_(x, shifted)
    for term, inverse in zip(constants[0, ::-1], inverses(constants[1, ::-1]), strict=True):
        x *= inverse
        _unshift_(x, shifted)
        x ^= term


def inverses(factors: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Inverses of odd factors modulo 2**16."""
    result = factors.copy()
    for _ in range(3):  # Newton: an odd number is its own inverse modulo 8, then 64, 2**12, 2**24
        result *= np.uint16(2) - factors * result
    return result


def _unshift_(x: NDArray[np.uint16], shifted: NDArray[np.uint16]) -> None:
    """Undoes ``x ^= x >> 7``."""
    np.right_shift(x, _SHIFT, out=shifted)
    x ^= shifted
    x ^= np.right_shift(shifted, _SHIFT, out=shifted)
