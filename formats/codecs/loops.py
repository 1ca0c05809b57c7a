"""The compiled loops over Rice-coded blocks and bitmaps; imported only where numba is.

Importing compiles, which takes seconds, or finds on disk what an earlier process has compiled.
Loops read bits through aligned 64-bit words behind which two words of zeros lie, so that no read
leaves the array whatever the headers say.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

numba: Any = import_module("numba")
types: Any = import_module("numba.types")
intrinsic: Any = import_module("numba.extending").intrinsic
ir: Any = import_module("llvmlite.ir")

F = TypeVar("F", bound="Callable[..., Any]")

WORDS = "Array(uint64, 1, 'C', True)"
"""What ``compiled.as_words`` makes; read-only."""


def compiled_for(*signatures: str) -> Callable[[F], F]:
    """Compiles a function, which then runs without the interpreter's lock.

    What lies on disk is made anew when the function's own file changes; of other files it may use
    only what never does, such as constants of the format.
    """

    def compile_(function: F) -> F:
        try:
            compiled: F = numba.njit(list(signatures), nogil=True, cache=True)(function)
        except (OSError, RuntimeError):  # no place on disk to keep it, or a full one
            compiled = numba.njit(list(signatures), nogil=True)(function)
        return compiled

    return compile_


def inlined(function: F) -> F:
    """For functions that only compiled ones call."""
    compiled: F = numba.njit(nogil=True)(function)
    return compiled


_count_zeros = lambda _context, builder, _signature, arguments: builder.cttz(  # noqa: E731
    arguments[0], ir.Constant(ir.IntType(1), 0)
)
lowest_bit: Callable[[np.uint64], int] = intrinsic(
    lambda _context, _word: (types.int64(types.uint64), _count_zeros)
)
"""The place of the lowest bit of a word; 64 if there is none.

numba has no name for the processor's instruction that counts trailing zeros.
"""
_count_ones = lambda _context, builder, _signature, arguments: builder.ctpop(arguments[0])  # noqa: E731
count_bits: Callable[[np.uint64], int] = intrinsic(
    lambda _context, _word: (types.int64(types.uint64), _count_ones)
)
"""How many bits of a word are set."""


@compiled_for(f"int64({WORDS}, int64[::1], int64[::1], int64[::1], int64[::1])")
def decode_blocks(
    words: NDArray[np.uint64],
    counts: NDArray[np.int64],
    k: NDArray[np.int64],
    nbytes: NDArray[np.int64],
    positions: NDArray[np.int64],
) -> int:
    """See ``compiled.decode_blocks``."""
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


@compiled_for(f"int64({WORDS}, int64[::1])")
def decode_bitmap(words: NDArray[np.uint64], positions: NDArray[np.int64]) -> int:
    """See ``compiled.decode_bitmap``."""
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
