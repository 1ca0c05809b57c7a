"""Ranked positions decoded by compiled loops, for those who install the ``fast`` extra.

They do what the numpy code of ``ranked`` does and are held to it by tests. One loop reads the codes
of all segments. Another walks the blocks, turns their ranks into offsets and sorts these by setting
bits, whose words it notes in further words so that empty ones are passed over.
"""

from __future__ import annotations

import functools
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from formats.codecs.compiled import as_words, bit_scan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from formats.buffers import Buffer
    from formats.codecs.segments import Segment

Loops = tuple["Callable[..., bool]", "Callable[..., None]"]


def decode(
    payload: Buffer,
    segments: Sequence[tuple[Segment, int, bool]],
    short: NDArray[np.int64],
    numel: int,
    seed: int,
    positions: NDArray[np.int64],
) -> bool:
    """Fills ``positions`` in increasing order.

    Args:
        payload: Codes of all segments.
        segments: With their Rice parameters and whether they tell of dropped elements.
        short: int64[n], ranks of the short last block, increasing.
        numel: Elements of the tensor.
        seed: Of its dither.
        positions: int64[n_kept], written.

    Returns:
        Whether the payload is sound.
    """
    read_codes, place = _loops()
    codings = np.array([(s.n_flags, k, marks) for s, k, marks in segments], np.int64).reshape(-1, 3)
    ranges = np.array([(s.start, s.stop) for s, _, _ in segments], np.int64).reshape(-1, 2)
    flags = np.empty(positions.size, np.int64)
    ends = np.empty(len(segments), np.int64)
    if not read_codes(as_words(payload), 8 * len(payload), codings, flags, ends):
        return False
    first_short = np.searchsorted(short, ranges[:, 0])
    place(flags, ends, ranges, first_short, short, numel >> 16, np.uint64(seed), positions)
    return True


@functools.cache
def _loops() -> Loops:
    """The compiled loops; the first use in a process takes about two seconds."""
    lowest_bit = bit_scan()
    compile_: Any = import_module("numba").njit(nogil=True)

    def read_codes(
        words: NDArray[np.uint64],
        n_bits: int,
        codings: NDArray[np.int64],
        flags: NDArray[np.int64],
        ends: NDArray[np.int64],
    ) -> bool:
        entry = 0
        unary, low_at = 0, n_bits  # what lies between them is not read yet
        for segment in range(ends.size):
            n_flags, k, is_complement = codings[segment]
            low_mask = np.uint64((1 << k) - 1)
            index = unary >> 6
            word = words[index] & np.uint64(0xFFFFFFFFFFFFFFFF) << np.uint64(unary & 63)
            place = -1
            while place < n_flags:
                while not word:
                    index += 1
                    if index << 6 >= low_at:
                        return False
                    word = words[index]
                at = (index << 6) + lowest_bit(word)
                word &= word - np.uint64(1)
                low_at -= k
                if at >= low_at:
                    return False
                shift = np.uint64(low_at & 63)
                low = words[low_at >> 6] >> shift
                low |= words[(low_at >> 6) + 1] << np.uint64(1) << (np.uint64(63) - shift)
                first = place + 1
                place = first + ((at - unary) << k) + np.int64(low & low_mask)
                unary = at + 1
                if is_complement:
                    stop = min(place, n_flags)
                    if stop - first > flags.size - entry:
                        return False
                    for flag in range(first, stop):
                        flags[entry] = flag
                        entry += 1
                elif place < n_flags:
                    if entry == flags.size:
                        return False
                    flags[entry] = place
                    entry += 1
            if place > n_flags:
                return False
            ends[segment] = entry
        if entry < flags.size or low_at - unary >= 8:
            return False
        for at in range(unary, low_at):
            if words[at >> 6] >> np.uint64(at & 63) & np.uint64(1):
                return False
        return True

    @compile_  # type: ignore[untyped-decorator]
    def set_keys(seed: np.uint64, block: int, constants: NDArray[np.uint16]) -> None:
        for row in range(2):
            z = seed + np.uint64(2 * block + row + 1) * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
            for step in range(4):
                constants[row, step] = z & np.uint64(0xFFFF)
                z >>= np.uint64(16)
        for step in range(4):
            factor = np.uint16(constants[1, step] | 1)
            inverse = factor
            for _ in range(3):
                inverse = np.uint16(inverse * (2 - factor * inverse))
            constants[1, step] = inverse

    @compile_  # type: ignore[untyped-decorator]
    def unpermute(x: NDArray[np.uint16], n: int, constants: NDArray[np.uint16]) -> None:
        for entry in range(n):
            value = x[entry]
            half = np.uint16(value >> 7)
            value = np.uint16(value ^ half ^ half >> 7)
            for step in range(3, -1, -1):
                value = np.uint16(value * constants[1, step])
                half = np.uint16(value >> 7)
                value = np.uint16(value ^ half ^ half >> 7 ^ constants[0, step])
            x[entry] = value

    def place(
        flags: NDArray[np.int64],
        ends: NDArray[np.int64],
        ranges: NDArray[np.int64],
        first_short: NDArray[np.int64],
        short: NDArray[np.int64],
        n_full: int,
        seed: np.uint64,
        positions: NDArray[np.int64],
    ) -> None:
        cursors = np.zeros_like(ends)
        cursors[1:] = ends[:-1]
        offsets = np.empty(65536, np.uint16)
        bits = np.zeros(1024, np.uint64)
        occupied = np.zeros(16, np.uint64)
        constants = np.empty((2, 4), np.uint16)
        entry = 0
        for block in range(n_full + 1):
            n = 0
            for segment in range(ends.size):
                start, stop = ranges[segment]
                base = block * (stop - start)
                next_base = base + stop - start
                cursor, end = cursors[segment], ends[segment]
                if block < n_full:
                    while cursor < end and flags[cursor] < next_base:
                        offsets[n] = start + flags[cursor] - base
                        n += 1
                        cursor += 1
                else:
                    while cursor < end:
                        offsets[n] = short[first_short[segment] + flags[cursor] - base]
                        n += 1
                        cursor += 1
                cursors[segment] = cursor
            if n == 0:
                continue
            set_keys(seed, block, constants)
            unpermute(offsets, n, constants)
            for index in range(n):
                word = offsets[index] >> 6
                bits[word] |= np.uint64(1) << np.uint64(offsets[index] & 63)
                occupied[word >> 6] |= np.uint64(1) << np.uint64(word & 63)
            for group in range(16):
                while occupied[group]:
                    word = (group << 6) + lowest_bit(occupied[group])
                    occupied[group] &= occupied[group] - np.uint64(1)
                    position = (block << 16) + (word << 6)
                    while bits[word]:
                        positions[entry] = position + lowest_bit(bits[word])
                        bits[word] &= bits[word] - np.uint64(1)
                        entry += 1

    return compile_(read_codes), compile_(place)
