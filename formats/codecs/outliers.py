"""The few levels that would have all others packed less densely.

How many levels a byte holds follows from the range of them, and heavy-tailed task vectors have a
few far out. Those are cut off at the edge of a narrower range, and what was cut off is listed.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

from formats.codecs.packing import digits_per_byte
from formats.errors import CorruptStreamError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from formats.buffers import Buffer

_WIDTHS = (3, 4, 6, 16)
"""The most levels of which 5, 4, 3 and 2 fit a byte."""
_EXCESS_BITS = 4.0
"""About what an outlier takes beyond the entropy of its gap."""


def narrow(levels: NDArray[np.int8]) -> tuple[int, int]:
    """The range within which the levels are expected to take the fewest bytes, outliers included.

    Args:
        levels: int8[n], n > 0.

    Returns:
        Lowest and highest level to pack.
    """
    counts = np.bincount(levels.view(np.uint8), minlength=256)
    counts = np.roll(counts, 128)  # from -128 to 127
    first, last = np.flatnonzero(counts)[[0, -1]].tolist()
    below = np.append(0, np.cumsum(counts))
    ranges = [(first, last)]
    for width in _WIDTHS:
        if width <= last - first:
            inside = below[first + width : last + 2] - below[first : last + 2 - width]
            start = first + int(np.argmax(inside))
            ranges.append((start, start + width - 1))
    low, high = min(ranges, key=lambda bounds: _expected_bits(counts, *bounds))
    return low - 128, high - 128


def split(
    levels: NDArray[np.int8], low: int, high: int
) -> tuple[NDArray[np.int8], NDArray[np.int64], bytes]:
    """The levels within a range, and where and by how much they were cut off."""
    cut = np.clip(levels, low, high)
    positions = np.flatnonzero(cut != levels).astype(np.int64)
    excess = levels[positions].astype(np.int16) - cut[positions]
    return cut, positions, np.abs(excess).astype(np.uint8).tobytes()


def restore_(
    levels: NDArray[np.int16], positions: NDArray[np.int64], excess: Buffer, low: int, high: int
) -> None:
    """Undoes :func:`split` in place.

    Raises:
        CorruptStreamError: An outlier is not at an edge of the range, has no excess or is no int8,
            or the range has no two edges.
    """
    if low == high:
        raise CorruptStreamError("outliers of a range of one level")
    edge = levels[positions]
    beyond = np.frombuffer(excess, np.uint8).astype(np.int16)
    if not (((edge == low) | (edge == high)) & (beyond > 0)).all():
        raise CorruptStreamError("an outlier that does not exceed the range of its levels")
    outliers = np.where(edge == low, low - beyond, high + beyond)
    if outliers.size and (outliers.min() < -128 or outliers.max() > 127):
        raise CorruptStreamError("an outlier beyond int8")
    levels[positions] = outliers


def _expected_bits(counts: NDArray[np.int64], low: int, high: int) -> float:
    """Bits of Huffman-coded bytes of independent levels, and of the outliers of the range."""
    n, inside = int(counts.sum()), counts[low : high + 1].copy()
    inside[0] += counts[:low].sum()
    inside[-1] += counts[high + 1 :].sum()
    digits = digits_per_byte(max(len(inside), 2))
    shares = joint = inside / n
    for _ in range(digits - 1):
        joint = np.outer(joint, shares).ravel()
    n_outliers = n - int(counts[low : high + 1].sum())
    gap_bits = np.log2(n / n_outliers) + _EXCESS_BITS if n_outliers else 0.0
    return n / digits * _huffman_bits(joint) + n_outliers * float(gap_bits)


def _huffman_bits(shares: NDArray[np.float64]) -> float:
    """Mean length of the codes: the sum of all inner nodes."""
    heap = sorted(shares[shares > 0].tolist())
    total = 0.0
    while len(heap) > 1:
        node = heapq.heappop(heap) + heapq.heappop(heap)
        total += node
        heapq.heappush(heap, node)
    return total
