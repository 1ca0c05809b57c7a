"""Positions decoded by compiled loops, for those who install the ``fast`` extra.

Each loop does what the numpy code beside it does and is held to it by tests; without numba, or for
few entries, the numpy code runs. Bits are read through aligned 64-bit words behind which two words
of zeros lie, so that no read leaves the array whatever the headers say.
"""

from __future__ import annotations

import functools
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from formats.buffers import Buffer

MIN_ENTRIES = 1 << 16
"""Below that numpy needs milliseconds, and loading the compiler would take longer."""

SOUND, WRONG_COUNT, BEYOND_BLOCK = 0, 1, 2

Loops = tuple["Callable[..., int]", "Callable[..., int]"]


@functools.cache
def is_available() -> bool:
    """Whether numba is installed; does not load it."""
    return sys.byteorder == "little" and find_spec("numba") is not None


def decode_blocks(
    data: Buffer,
    counts: NDArray[np.int64],
    k: NDArray[np.int64],
    nbytes: NDArray[np.int64],
    positions: NDArray[np.int64],
) -> int:
    """Fills ``positions`` from Rice-coded blocks.

    Args:
        data: Payloads of all blocks, ``nbytes.sum()`` bytes.
        counts: Entries of every block; their sum is the size of ``positions``, and each fits its
            payload: ``counts * (k + 1) <= nbytes * 8``.
        k: Low bits of every block, at most 15.
        nbytes: Payload of every block.
        positions: int64[n], written.

    Returns:
        ``SOUND``, ``WRONG_COUNT`` or ``BEYOND_BLOCK``.
    """
    return _loops()[0](as_words(data), counts, k, nbytes, positions)


def decode_bitmap(data: Buffer, positions: NDArray[np.int64]) -> int:
    """Fills ``positions`` with the bits set in a bitmap; ``SOUND`` or ``WRONG_COUNT``."""
    return _loops()[1](as_words(data), positions)


def as_words(data: Buffer) -> NDArray[np.uint64]:
    """The data as little-endian words with two words of zeros behind it."""
    padded = np.zeros(len(data) // 8 + 3, np.uint64)
    padded.view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
    return padded


@functools.cache
def bit_scan() -> Callable[[np.uint64], int]:
    """For compiled loops: the place of the lowest bit of a word, which is not zero.

    numba has no name for the processor's instruction that counts trailing zeros.
    """
    types: Any = import_module("numba").types
    ir: Any = import_module("llvmlite.ir")
    extending: Any = import_module("numba.extending")
    count_zeros = lambda _context, builder, _signature, args: builder.cttz(  # noqa: E731
        args[0], ir.Constant(ir.IntType(1), 0)
    )
    scan: Callable[[np.uint64], int] = extending.intrinsic(
        lambda _context, _word: (types.int64(types.uint64), count_zeros)
    )
    return scan


@functools.cache
def _loops() -> Loops:
    """The compiled loops; the first use in a process takes about a second."""
    lowest_bit = bit_scan()

    def blocks(
        words: NDArray[np.uint64],
        counts: NDArray[np.int64],
        k: NDArray[np.int64],
        nbytes: NDArray[np.int64],
        positions: NDArray[np.int64],
    ) -> int:
        start = 0  # first bit of the block
        entry = 0
        for block in range(counts.size):
            count, low_bits = counts[block], k[block]
            end = start + nbytes[block] * 8
            low_mask = np.uint64((1 << low_bits) - 1)
            low_at = start
            unary = start + count * low_bits
            previous = unary - 1
            last = entry + count
            position = block * 65536 - 1
            limit = position + 65536
            for index in range(unary >> 6, (end + 63) >> 6):
                word = words[index]
                if index == unary >> 6:
                    word &= np.uint64(0xFFFFFFFFFFFFFFFF) << np.uint64(unary & 63)
                if index == end >> 6:
                    word &= (np.uint64(1) << np.uint64(end & 63)) - np.uint64(1)
                while word:
                    if entry == last:
                        return 1
                    at = (index << 6) + lowest_bit(word)
                    word &= word - np.uint64(1)
                    shift = np.uint64(low_at & 63)
                    low = words[low_at >> 6] >> shift
                    low |= words[(low_at >> 6) + 1] << np.uint64(1) << (np.uint64(63) - shift)
                    low_at += low_bits
                    quotient = at - previous - 1
                    previous = at
                    position += (quotient << low_bits) + np.int64(low & low_mask) + 1
                    positions[entry] = position
                    entry += 1
            if entry != last:
                return 1
            if position > limit:
                return 2
            start = end
        return 0

    def bitmap(words: NDArray[np.uint64], positions: NDArray[np.int64]) -> int:
        entry = 0
        for index in range(words.size):
            word = words[index]
            while word:
                if entry == positions.size:
                    return 1
                positions[entry] = (index << 6) + lowest_bit(word)
                word &= word - np.uint64(1)
                entry += 1
        return 0 if entry == positions.size else 1

    compile_: Any = import_module("numba").njit(nogil=True)
    return compile_(blocks), compile_(bitmap)
