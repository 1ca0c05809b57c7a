"""The compiled loops over ranked positions; imported only where numba is.

One reads the codes of all segments. Another walks the blocks, turns their ranks into offsets and
sorts these by setting bits, whose words it notes in further words so that empty ones are passed
over. Work grows with the kept entries, and with the lowest ranks of a short last block at most.

Arrays are indexed by unsigned numbers where it counts: numba looks whether signed ones are below
zero, which takes a third of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from formats.codecs.loops import WORDS, compiled_for, count_bits, inlined, lowest_bit
from formats.codecs.segments import EDGES, MAX_K, N_BUCKETS

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST_HEADER, N_HEADERS, FIRST_BYTE, N_BYTES, NUMEL, SEED, STARTS, OFFSETS, N_KEPT = range(9)
"""Columns of records: where in the streams their headers and payload are, and how long; elements
and seed of the tensor; where their starts and offsets go, and how many entries they have."""

START, STOP, CODING, N_FLAGS, FIRST_SHORT = range(5)
"""Columns of segments: lowest rank, that behind it, header bits, elements, place in ``short``."""

_u64 = np.uint64


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
    found: NDArray[np.uint16],
    bits: NDArray[np.uint64],
    occupied: NDArray[np.uint64],
) -> None:
    """Fills ``found`` with the ``n`` numbers, which differ, in increasing order; it has a place
    more, because two numbers are written at a time, whether there is a second or not."""
    for entry in range(_u64(n)):
        word = x[entry] >> 6
        bits[_u64(word)] |= _u64(1) << _u64(x[entry] & 63)
        occupied[_u64(word >> 6)] |= _u64(1) << _u64(word & 63)
    entry = 0
    for group in range(16):
        words = occupied[group]
        occupied[group] = 0
        while words:
            word = (group << 6) + lowest_bit(words)
            words &= words - _u64(1)
            left = bits[_u64(word)]
            bits[_u64(word)] = 0
            first, end = word << 6, entry + count_bits(left)
            while entry < end:
                found[_u64(entry)] = first + lowest_bit(left)
                left &= left - _u64(1)
                found[_u64(entry + 1)] = first + lowest_bit(left)
                left &= left - _u64(1)
                entry += 2
            entry = end


@inlined
def _low_ranks(
    n: int,
    limit: int,
    keys: NDArray[np.uint16],
    bits: NDArray[np.uint64],
    occupied: NDArray[np.uint64],
) -> NDArray[np.uint16]:
    """Ranks below ``limit`` of the offsets below ``n``, increasing; the shorter way of two."""
    fewer = min(n, limit)
    ranks = np.empty(fewer + 1, np.uint16)
    x = np.empty(fewer, np.uint16)
    for entry in range(_u64(fewer)):
        x[entry] = entry
    n_found = 0
    if n <= limit:
        _permute_(x, n, keys)
        _sort(x, n, ranks, bits, occupied)
        while n_found < n and ranks[n_found] < limit:
            n_found += 1
    else:
        _unpermute_(x, limit, keys)
        for rank in range(_u64(limit)):
            ranks[_u64(n_found)] = rank
            n_found += x[rank] < n
    return ranks[:n_found]


@inlined
def _read_segments(
    headers: NDArray[np.uint8], n_full: int, short: NDArray[np.uint16], segments: NDArray[np.int64]
) -> None:
    """Fills the columns that the headers and the ranks of the short last block tell."""
    last = n_passed = 0
    for segment in range(headers.size):
        first, last = last, last + (headers[segment] >> 5) + 1
        start, stop = EDGES[first], EDGES[last]
        segments[segment, START], segments[segment, STOP] = start, stop
        segments[segment, CODING] = headers[segment] & 31
        segments[segment, FIRST_SHORT] = n_passed
        while n_passed < short.size and short[n_passed] < stop:
            n_passed += 1
        n_in_short = n_passed - segments[segment, FIRST_SHORT]
        segments[segment, N_FLAGS] = n_full * (stop - start) + n_in_short


@inlined
def _bits_at(words: NDArray[np.uint64], at: int) -> np.uint64:
    """The 64 bits from a place on."""
    shift = _u64(at & 63)
    bits: np.uint64 = words[_u64(at >> 6)] >> shift
    bits |= words[_u64((at >> 6) + 1)] << _u64(1) << (_u64(63) - shift)
    return bits


@inlined
def _read_codes(
    words: NDArray[np.uint64],
    first_bit: int,
    end_bit: int,
    segments: NDArray[np.int64],
    flags: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> bool:
    """Fills ``flags`` with the places of kept elements, segment by segment."""
    entry = 0
    unary, low_at = first_bit, end_bit  # what lies between them is not read yet
    for segment in range(ends.size):
        n_flags, k = segments[segment, N_FLAGS], segments[segment, CODING]
        is_complement = k > MAX_K
        if is_complement:
            k -= MAX_K + 1
        low_mask = _u64((1 << k) - 1)
        index = unary >> 6
        word = words[_u64(index)] & _u64(0xFFFFFFFFFFFFFFFF) << _u64(unary & 63)
        place = -1
        while place < n_flags:
            while not word:
                index += 1
                if index << 6 >= low_at:
                    return False
                word = words[_u64(index)]
            at = (index << 6) + lowest_bit(word)
            word &= word - _u64(1)
            low_at -= k
            if at >= low_at:
                return False
            first = place + 1
            low = np.int64(_bits_at(words, low_at) & low_mask)
            place = first + ((at - unary) << k) + low
            unary = at + 1
            if is_complement:
                stop = min(place, n_flags)
                if stop - first > flags.size - entry:
                    return False
                for flag in range(first, stop):
                    flags[_u64(entry)] = flag
                    entry += 1
            elif place < n_flags:
                if entry == flags.size:
                    return False
                flags[_u64(entry)] = place
                entry += 1
        if place > n_flags:
            return False
        ends[segment] = entry
    if entry < flags.size or low_at - unary >= 8:
        return False
    return not _bits_at(words, unary) & _u64((1 << (low_at - unary)) - 1)


@inlined
def _place(
    flags: NDArray[np.int64],
    ends: NDArray[np.int64],
    segments: NDArray[np.int64],
    short: NDArray[np.uint16],
    n_full: int,
    seed: np.uint64,
    keys: NDArray[np.uint16],
    bits: NDArray[np.uint64],
    occupied: NDArray[np.uint64],
    starts: NDArray[np.int64],
    offsets: NDArray[np.uint16],
) -> None:
    """Fills ``starts`` and ``offsets`` block by block, each from all of its segments."""
    cursors = np.zeros(ends.size, np.int64)
    for segment in range(1, ends.size):
        cursors[segment] = ends[segment - 1]
    most = min(offsets.size, 65536)
    x, found = np.empty(most, np.uint16), np.empty(most + 1, np.uint16)
    entry = 0
    for block in range(starts.size - 1):
        n = 0
        for segment in range(ends.size):
            start = segments[segment, START]
            width = segments[segment, STOP] - start
            base = block * width
            cursor, end = cursors[segment], ends[segment]
            if block < n_full:
                next_base, shift = base + width, start - base
                while cursor < end and flags[_u64(cursor)] < next_base:
                    x[_u64(n)] = flags[_u64(cursor)] + shift
                    n += 1
                    cursor += 1
            else:
                shift = segments[segment, FIRST_SHORT] - base
                while cursor < end:
                    x[n] = short[flags[cursor] + shift]
                    n += 1
                    cursor += 1
            cursors[segment] = cursor
        starts[block] = entry
        if n:
            _set_keys(seed, block, keys)
            _unpermute_(x, n, keys)
            _sort(x, n, found, bits, occupied)
            for index in range(_u64(n)):
                offsets[_u64(entry)] = found[index]
                entry += 1
    starts[starts.size - 1] = entry


@compiled_for(
    f"boolean({WORDS}, Array(uint8, 1, 'C', True), int64[:, ::1], int64[::1], uint16[::1])"
)
def decode(
    words: NDArray[np.uint64],
    headers: NDArray[np.uint8],
    records: NDArray[np.int64],
    starts: NDArray[np.int64],
    offsets: NDArray[np.uint16],
) -> bool:
    """See ``compiled.decode_ranks``."""
    keys = np.empty((3, 4), np.uint16)
    bits, occupied = np.zeros(1024, np.uint64), np.zeros(16, np.uint64)
    segments, ends = np.empty((N_BUCKETS, 5), np.int64), np.empty(N_BUCKETS, np.int64)
    most = 0
    for number in range(len(records)):
        most = max(most, records[number, N_KEPT])
    flags = np.empty(most, np.int64)
    for number in range(len(records)):
        record = records[number]
        first = record[FIRST_HEADER]
        of_record = headers[first : first + record[N_HEADERS]]
        last = 0
        for header in of_record:
            last += (header >> 5) + 1
        if last > N_BUCKETS:
            return False
        seed, n_full, n_short = np.uint64(record[SEED]), record[NUMEL] >> 16, record[NUMEL] & 65535
        _set_keys(seed, n_full, keys)
        short = _low_ranks(n_short, EDGES[last], keys, bits, occupied)
        _read_segments(of_record, n_full, short, segments)
        first_bit, n_kept = 8 * record[FIRST_BYTE], record[N_KEPT]
        end_bit = first_bit + 8 * record[N_BYTES]
        places, ends_of = flags[:n_kept], ends[: of_record.size]
        if not _read_codes(words, first_bit, end_bit, segments, places, ends_of):
            return False
        n_starts = n_full + (n_short > 0) + 1
        _place(
            places, ends_of, segments, short, n_full, seed, keys, bits, occupied,
            starts[record[STARTS] : record[STARTS] + n_starts],
            offsets[record[OFFSETS] : record[OFFSETS] + n_kept],
        )  # fmt: skip
    return True


@compiled_for("void(int64[::1], uint16[::1], int64[::1])")
def flatten(
    starts: NDArray[np.int64], offsets: NDArray[np.uint16], positions: NDArray[np.int64]
) -> None:
    """See ``compiled.flat_positions``."""
    for block in range(starts.size - 1):
        for entry in range(_u64(starts[block]), _u64(starts[block + 1])):
            positions[entry] = (block << 16) + offsets[entry]
