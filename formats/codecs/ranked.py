"""Kept positions of a dithered selection, coded in the order of their random numbers.

Dither keeps the elements whose number is small beside their magnitude, and the decoder can make the
numbers anew. Sorted by them the kept elements crowd at the front, so that saying which ones they
are takes a third of the bits of their gaps in place.

Ranks are cut at ``EDGES`` and consecutive buckets are gathered into segments, one header byte each,
such that a segment's elements are kept about equally often. Its flags, by block and then by rank,
are Rice codes of the gaps between kept ones (or between dropped ones, where those are fewer); a
last code points right behind the last flag, which spares a count. FORMAT.md says the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from formats import dither
from formats.codecs import compiled
from formats.codecs import segments as plan
from formats.errors import CorruptStreamError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from formats.buffers import Buffer
    from formats.codecs.segments import Segment

MAX_KEPT_A_BYTE = 8 << plan.MAX_COMPLEMENT_K
"""Kept entries that a byte of the payload can tell of; more are refused before any allocation."""

MAX_BLOCKS_AN_ENTRY = 4
"""The compiled loops take memory for every block of the tensor."""

_FIRST_CODES, _MOST_CODES = 1 << 9, 1 << 16


class _Order:
    """The elements of a tensor as flags: by segment, then block, then rank.

    Every rank exists in a full block; those of a short last block are listed.

    Attributes:
        short: int64[n], ranks of the short last block, increasing.
    """

    def __init__(self, numel: int, seed: int) -> None:
        self._n_full, n_short = divmod(numel, dither.BLOCK)
        ranks = dither.ranks(seed, self._n_full, n=n_short)
        self.short = np.sort(ranks, kind="stable").astype(np.int64)

    def counts(self, edges: NDArray[np.int64]) -> NDArray[np.int64]:
        """Elements of rank below each edge."""
        return self._n_full * edges + np.searchsorted(self.short, edges)

    def flags(
        self, blocks: NDArray[np.int64], ranks: NDArray[np.int64], segment: Segment
    ) -> NDArray[np.int64]:
        """Places among the flags of a segment, increasing."""
        start, width = segment.start, segment.stop - segment.start
        first = np.searchsorted(self.short, start)
        in_short = np.searchsorted(self.short, ranks) - first
        within = np.where(blocks < self._n_full, ranks - start, in_short)
        return np.sort(blocks * width + within)

    def ranks(
        self, flags: NDArray[np.int64], segment: Segment
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Blocks, and ranks within them, of increasing places among the flags of a segment."""
        start, width = segment.start, segment.stop - segment.start
        blocks, ranks = np.divmod(flags, width)
        ranks += start
        n_full = int(np.searchsorted(flags, self._n_full * width))
        if n_full < flags.size:
            first = int(np.searchsorted(self.short, start))
            blocks[n_full:] = self._n_full
            ranks[n_full:] = self.short[first + flags[n_full:] - self._n_full * width]
        return blocks, ranks


def encode(positions: NDArray[np.int64], numel: int, seed: int) -> tuple[bytes, bytes]:
    """Segment headers and payload of strictly increasing positions."""
    order = _Order(numel, seed)
    blocks = positions >> 16
    ranks = dither.ranks_of(seed, positions).astype(np.int64)
    n_kept = np.histogram(ranks, plan.EDGES)[0]
    headers, codes, ks = bytearray(), [], []
    for segment in plan.cut(np.diff(order.counts(plan.EDGES)), n_kept):
        inside = (ranks >= segment.start) & (ranks < segment.stop)
        flags = order.flags(blocks[inside], ranks[inside], segment)
        is_complement = 2 * flags.size > segment.n_flags
        if is_complement:
            flags = _others(flags, segment.n_flags)
        gaps = np.diff(flags, prepend=-1, append=segment.n_flags) - 1
        k = plan.cheapest_k(gaps, is_complement=is_complement)
        headers.append(segment.header(k, is_complement=is_complement))
        codes.append(gaps)
        ks.append(np.full(gaps.size, k))
    if not codes:
        return b"", b""
    return bytes(headers), _pack(np.concatenate(codes), np.concatenate(ks))


def decode(
    headers: Buffer, payload: Buffer, numel: int, n_kept: int, seed: int
) -> NDArray[np.int64]:
    """int64[n_kept] positions in increasing order.

    Raises:
        CorruptStreamError: Headers and payload contradict each other or the count.
    """
    is_possible = n_kept <= len(payload) * MAX_KEPT_A_BYTE
    n_blocks = -(-numel // dither.BLOCK)
    if is_possible and n_blocks <= MAX_BLOCKS_AN_ENTRY * n_kept and compiled.is_worth_it(n_kept):
        positions = _decode_compiled(headers, payload, numel, n_kept, seed)
        if positions is not None:
            return positions  # else numpy says what is wrong
    order = _Order(numel, seed)
    segments = list(plan.parse(headers, order.counts(plan.EDGES)))
    if not is_possible:
        raise CorruptStreamError("ranked payload is too short for its count")
    bits = _Bits(payload)
    found = []
    n_left = n_kept
    for segment, k, is_complement in segments:
        flags = bits.take(segment.n_flags, k)
        n = segment.n_flags - flags.size if is_complement else flags.size
        n_left -= n
        if n_left < 0:
            break
        if is_complement:
            flags = _others(flags, segment.n_flags)
        found.append(order.ranks(flags, segment))
    if n_left:
        raise CorruptStreamError("ranked segments contradict the count", expected=n_kept)
    bits.finish()
    if not n_kept:
        return np.empty(0, np.int64)
    blocks, ranks = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return np.sort(dither.positions_of(seed, blocks, ranks.astype(np.uint16)))


def _decode_compiled(
    headers: Buffer, payload: Buffer, numel: int, n_kept: int, seed: int
) -> NDArray[np.int64] | None:
    """The same by the compiled loops, unless something is wrong."""
    n_blocks = -(-numel // dither.BLOCK)
    starts, offsets = np.empty(n_blocks + 1, np.int64), np.empty(n_kept, np.uint16)
    signed = seed - (seed >> 63 << 64)
    record = [[0, len(headers), 0, len(payload), numel, signed, 0, 0, n_kept]]
    codings = np.frombuffer(headers, np.uint8)
    if not compiled.decode_ranks(codings, payload, np.array(record), starts, offsets):
        return None
    return compiled.flat_positions(starts, offsets)


def _others(flags: NDArray[np.int64], n_flags: int) -> NDArray[np.int64]:
    """What of ``range(n_flags)`` is not among ``flags``."""
    mask = np.ones(n_flags, np.bool_)
    mask[flags] = False
    return np.flatnonzero(mask)


def _pack(codes: NDArray[np.int64], ks: NDArray[np.int64]) -> bytes:
    """Unary parts from the first bit upwards, low bits from the last one downwards."""
    unary_ends = np.cumsum((codes >> ks) + 1)
    low_ends = np.cumsum(ks)
    n_bits = -(-int(unary_ends[-1] + low_ends[-1]) // 8) * 8
    bits = np.zeros(n_bits, np.uint8)
    bits[unary_ends - 1] = 1
    for bit in range(int(ks.max())):
        entries = np.flatnonzero((ks > bit) & (codes >> bit & 1 == 1))
        bits[n_bits - low_ends[entries] + bit] = 1
    return np.packbits(bits, bitorder="little").tobytes()


class _Bits:
    """Reads a payload from both of its ends."""

    def __init__(self, payload: Buffer) -> None:
        self._bits = np.unpackbits(np.frombuffer(payload, np.uint8), bitorder="little")
        self._ones = np.flatnonzero(self._bits)
        self._next = 0  # of the ones
        self._unary_end = 0
        self._low_start = self._bits.size

    def take(self, n_flags: int, k: int) -> NDArray[np.int64]:
        """Places that the codes of a segment point to, the last one taken off."""
        parts = []
        place, most = -1, _FIRST_CODES
        while True:
            n = min(most, self._ones.size - self._next)
            if k:
                n = min(n, self._low_start // k)
            if not n:
                raise CorruptStreamError("ranked payload ends within a segment")
            places = self._gaps(n, k)
            places += 1
            places[0] += place
            np.cumsum(places, out=places)
            n_before = int(np.searchsorted(places, n_flags))
            parts.append(places[:n_before])
            self._advance(min(n_before + 1, n), k)
            if n_before < n:
                if places[n_before] != n_flags:
                    raise CorruptStreamError("a code points beyond its ranked segment")
                return np.concatenate(parts)
            place, most = int(places[-1]), min(2 * most, _MOST_CODES)

    def finish(self) -> None:
        """Checks that nothing but padding is left.

        Raises:
            CorruptStreamError: Both ends overlap, or more than padding lies between them.
        """
        rest = self._bits[self._unary_end : self._low_start]
        if self._unary_end > self._low_start or rest.size >= 8 or rest.any():
            raise CorruptStreamError("ranked payload is not filled by its codes")

    def _gaps(self, n: int, k: int) -> NDArray[np.int64]:
        ones = self._ones[self._next : self._next + n]
        gaps = np.empty(n, np.int64)
        gaps[0] = ones[0] - self._unary_end
        np.subtract(ones[1:], ones[:-1] + 1, out=gaps[1:])
        gaps <<= k
        low = self._bits[self._low_start - n * k : self._low_start].reshape(n, k)[::-1]
        for bit in range(k):
            gaps |= low[:, bit].astype(np.int64) << bit
        return gaps

    def _advance(self, n: int, k: int) -> None:
        self._unary_end = int(self._ones[self._next + n - 1]) + 1
        self._next += n
        self._low_start -= n * k
