"""The compiled loops over ranked positions; imported only where numba is.

One reads the codes of all segments. Another walks the blocks, turns their ranks into offsets and
sorts these by setting bits, whose words it notes in further words so that empty ones are passed
over. Work grows with the kept entries, and with the lowest ranks of a short last block at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from formats.codecs.loops import WORDS, compiled_for, inlined, lowest_bit
from formats.codecs.segments import EDGES, MAX_K, N_BUCKETS

if TYPE_CHECKING:
    from numpy.typing import NDArray

START, STOP, CODING, N_FLAGS, FIRST_SHORT = range(5)
"""Columns of segments: lowest rank, that behind it, header bits, elements, place in ``short``."""


@inlined
def _set_keys(seed: np.uint64, block: int, keys: NDArray[np.uint16]) -> None:
    """Terms, factors and inverses of the factors of a block's permutation."""
    for row in range(2):
        z = seed + np.uint64(2 * block + row + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        for step in range(4):
            keys[row, step] = z & np.uint64(0xFFFF)
            z >>= np.uint64(16)
    for step in range(4):
        factor = np.uint16(keys[1, step] | 1)
        inverse = factor
        for _ in range(3):
            inverse = np.uint16(inverse * (2 - factor * inverse))
        keys[1, step], keys[2, step] = factor, inverse


@inlined
def _permute_(x: NDArray[np.uint16], n: int, keys: NDArray[np.uint16]) -> None:
    for entry in range(n):
        value = x[entry]
        for step in range(4):
            value = np.uint16(value ^ keys[0, step])
            value = np.uint16((value ^ value >> 7) * keys[1, step])
        x[entry] = value ^ value >> 7


@inlined
def _unpermute_(x: NDArray[np.uint16], n: int, keys: NDArray[np.uint16]) -> None:
    for entry in range(n):
        value = x[entry]
        half = np.uint16(value >> 7)
        value = np.uint16(value ^ half ^ half >> 7)
        for step in range(3, -1, -1):
            value = np.uint16(value * keys[2, step])
            half = np.uint16(value >> 7)
            value = np.uint16(value ^ half ^ half >> 7 ^ keys[0, step])
        x[entry] = value


@inlined
def _sort(
    x: NDArray[np.uint16],
    n: int,
    found: NDArray[np.int64],
    base: int,
    bits: NDArray[np.uint64],
    occupied: NDArray[np.uint64],
) -> None:
    """Sets ``found`` to ``base`` plus the ``n`` numbers, which differ, in increasing order."""
    for entry in range(n):
        word = x[entry] >> 6
        bits[word] |= np.uint64(1) << np.uint64(x[entry] & 63)
        occupied[word >> 6] |= np.uint64(1) << np.uint64(word & 63)
    entry = 0
    for group in range(16):
        while occupied[group]:
            word = (group << 6) + lowest_bit(occupied[group])
            occupied[group] &= occupied[group] - np.uint64(1)
            first = base + (word << 6)
            while bits[word]:
                found[entry] = first + lowest_bit(bits[word])
                bits[word] &= bits[word] - np.uint64(1)
                entry += 1


@inlined
def _low_ranks(
    n: int,
    limit: int,
    keys: NDArray[np.uint16],
    bits: NDArray[np.uint64],
    occupied: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """Ranks below ``limit`` of the offsets below ``n``, increasing; the shorter way of two."""
    fewer = min(n, limit)
    ranks = np.empty(fewer, np.int64)
    x = np.empty(fewer, np.uint16)
    for entry in range(fewer):
        x[entry] = entry
    n_found = 0
    if n <= limit:
        _permute_(x, n, keys)
        _sort(x, n, ranks, 0, bits, occupied)
        while n_found < n and ranks[n_found] < limit:
            n_found += 1
    else:
        _unpermute_(x, limit, keys)
        for rank in range(limit):
            ranks[n_found] = rank
            n_found += x[rank] < n
    return ranks[:n_found]


@inlined
def _read_codes(
    words: NDArray[np.uint64],
    n_bits: int,
    segments: NDArray[np.int64],
    flags: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> bool:
    """Fills ``flags`` with the places of kept elements, segment by segment."""
    entry = 0
    unary, low_at = 0, n_bits  # what lies between them is not read yet
    for segment in range(ends.size):
        n_flags, k = segments[segment, N_FLAGS], segments[segment, CODING]
        is_complement = k > MAX_K
        if is_complement:
            k -= MAX_K + 1
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


@inlined
def _place(
    flags: NDArray[np.int64],
    ends: NDArray[np.int64],
    segments: NDArray[np.int64],
    short: NDArray[np.int64],
    n_full: int,
    seed: np.uint64,
    keys: NDArray[np.uint16],
    bits: NDArray[np.uint64],
    occupied: NDArray[np.uint64],
    positions: NDArray[np.int64],
) -> None:
    """Fills ``positions`` block by block, each from all of its segments."""
    cursors = np.zeros(ends.size, np.int64)
    for segment in range(1, ends.size):
        cursors[segment] = ends[segment - 1]
    offsets = np.empty(min(positions.size, 65536), np.uint16)
    entry = 0
    for block in range(n_full + 1):
        n = 0
        for segment in range(ends.size):
            start = segments[segment, START]
            width = segments[segment, STOP] - start
            base = block * width
            next_base = base + width
            cursor, end = cursors[segment], ends[segment]
            if block < n_full:
                while cursor < end and flags[cursor] < next_base:
                    offsets[n] = start + flags[cursor] - base
                    n += 1
                    cursor += 1
            else:
                first_short = segments[segment, FIRST_SHORT]
                while cursor < end:
                    offsets[n] = short[first_short + flags[cursor] - base]
                    n += 1
                    cursor += 1
            cursors[segment] = cursor
        if n:
            _set_keys(seed, block, keys)
            _unpermute_(offsets, n, keys)
            _sort(offsets, n, positions[entry:], block << 16, bits, occupied)
            entry += n


@compiled_for(f"boolean({WORDS}, int64, Array(uint8, 1, 'C', True), int64, uint64, int64[::1])")
def decode(
    words: NDArray[np.uint64],
    n_bits: int,
    headers: NDArray[np.uint8],
    numel: int,
    seed: np.uint64,
    positions: NDArray[np.int64],
) -> bool:
    """See ``compiled.decode_ranks``."""
    n_full, n_short = numel >> 16, numel & 65535
    segments = np.empty((headers.size, 5), np.int64)
    last = 0
    for segment in range(headers.size):
        first, last = last, last + (headers[segment] >> 5) + 1
        if last > N_BUCKETS:
            return False
        segments[segment, START], segments[segment, STOP] = EDGES[first], EDGES[last]
        segments[segment, CODING] = headers[segment] & 31

    keys = np.empty((3, 4), np.uint16)
    bits, occupied = np.zeros(1024, np.uint64), np.zeros(16, np.uint64)
    _set_keys(seed, n_full, keys)
    short = _low_ranks(n_short, EDGES[last], keys, bits, occupied)
    n_passed = 0
    for segment in range(headers.size):
        start, stop = segments[segment, START], segments[segment, STOP]
        segments[segment, FIRST_SHORT] = n_passed
        while n_passed < short.size and short[n_passed] < stop:
            n_passed += 1
        n_in_short = n_passed - segments[segment, FIRST_SHORT]
        segments[segment, N_FLAGS] = n_full * (stop - start) + n_in_short

    flags = np.empty(positions.size, np.int64)
    ends = np.empty(headers.size, np.int64)
    if not _read_codes(words, n_bits, segments, flags, ends):
        return False
    _place(flags, ends, segments, short, n_full, seed, keys, bits, occupied, positions)
    return True
