"""Segments of ranked positions: runs of rank buckets whose elements are kept about equally often.

A header is one byte: bits 0 to 4 say how the flags are coded, bits 5 to 7 how many buckets the
segment has, less one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from formats.errors import CorruptStreamError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from formats.buffers import Buffer

EDGES: NDArray[np.int64] = np.array(
    [0, *(m << i for i in range(12) for m in (16, 24)), 1 << 16], np.int64
)
"""0, 16, 24, 32, 48, 64, 96 and so on to 65,536."""

N_BUCKETS = len(EDGES) - 1
MAX_SPAN = 8
MAX_K = 23
MAX_COMPLEMENT_K = 7
# What a header costs of the bits that it may save, after the compression of all of them together.
_HEADER_BITS = 6.0


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive buckets.

    Attributes:
        first: Number of the first bucket.
        last: Number of the bucket behind the last one.
        n_flags: Elements of the tensor whose rank lies in it.
    """

    first: int
    last: int
    n_flags: int

    @property
    def start(self) -> int:
        """The lowest rank."""
        return int(EDGES[self.first])

    @property
    def stop(self) -> int:
        """The lowest rank behind it."""
        return int(EDGES[self.last])

    def header(self, k: int, *, is_complement: bool) -> int:
        """The header byte."""
        coding = MAX_K + 1 + k if is_complement else k
        return (self.last - self.first - 1) << 5 | coding


def parse(headers: Buffer, counts: NDArray[np.int64]) -> Iterator[tuple[Segment, int, bool]]:
    """Segments with their Rice parameters and whether they tell of dropped elements.

    Args:
        headers: One byte a segment.
        counts: Elements of rank below each of ``EDGES``.

    Raises:
        CorruptStreamError: There are more buckets than ranks.
    """
    first = 0
    for header in bytes(headers):
        last = first + (header >> 5) + 1
        if last > N_BUCKETS:
            raise CorruptStreamError("ranked segments beyond the last rank")
        coding = header & 31
        is_complement = coding > MAX_K
        k = coding - MAX_K - 1 if is_complement else coding
        yield Segment(first, last, int(counts[last] - counts[first])), k, is_complement
        first = last


def cut(n_flags: NDArray[np.int64], n_kept: NDArray[np.int64]) -> list[Segment]:
    """The segments that are expected to take the fewest bits, up to the last kept element.

    Args:
        n_flags: int64[N_BUCKETS], elements of each bucket.
        n_kept: int64[N_BUCKETS], those of them that are kept.
    """
    n_used = int(np.flatnonzero(n_kept).max(initial=-1)) + 1
    flags_below = np.append(0, np.cumsum(n_flags))
    kept_below = np.append(0, np.cumsum(n_kept))
    last, span = (grid.ravel() for grid in np.mgrid[1 : n_used + 1, 1 : MAX_SPAN + 1])
    first = np.maximum(last - span, 0)
    n = flags_below[last] - flags_below[first]
    costs = _expected_bits(n, kept_below[last] - kept_below[first]) + _HEADER_BITS
    best = [0.0]
    come_from = [0]
    for at, row in enumerate(costs.reshape(n_used, MAX_SPAN).tolist(), 1):
        totals = [best[max(at - span, 0)] + cost for span, cost in enumerate(row, 1)]
        best.append(min(totals))
        come_from.append(max(at - 1 - totals.index(best[-1]), 0))
    return _segments(come_from, n_used, flags_below)


def cheapest_k(gaps: NDArray[np.int64], *, is_complement: bool) -> int:
    """The Rice parameter of fewest bits, the smallest of equals."""
    most = MAX_COMPLEMENT_K if is_complement else MAX_K
    sizes = [int((gaps >> k).sum()) + gaps.size * (k + 1) for k in range(most + 1)]
    return sizes.index(min(sizes))


def _expected_bits(n: NDArray[np.int64], n_kept: NDArray[np.int64]) -> NDArray[np.float64]:
    """Bits of Rice codes of ``n`` flags if the kept ones lie at random."""
    fewer = np.minimum(n_kept, n - n_kept)
    stays = np.log1p(-(fewer + 0.5) / (n + 1))
    k = np.arange(MAX_K + 1)[:, None]
    bits_a_code: NDArray[np.float64] = k - 1 / np.expm1(2.0**k * stays)
    bits: NDArray[np.float64] = (fewer + 1) * bits_a_code.min(axis=0)
    return bits


def _segments(
    come_from: Sequence[int], n_used: int, flags_below: NDArray[np.int64]
) -> list[Segment]:
    segments = []
    last = n_used
    while last:
        first = come_from[last]
        segments.append(Segment(first, last, int(flags_below[last] - flags_below[first])))
        last = first
    return segments[::-1]
