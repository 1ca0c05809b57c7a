"""The few levels that would have all others packed less densely.

How many levels a byte holds follows from the range of them, and heavy-tailed task vectors have a
few far out. Those are cut off at the edge of a narrower range, and what was cut off is listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from formats.errors import CorruptStreamError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from formats.buffers import Buffer

_WIDTHS = (3, 5, 6, 9, 12, 16)
"""The most levels of which 5, 3 and 2 fit a byte, and some with fewer values of a byte."""


def ranges(levels: NDArray[np.int8]) -> list[tuple[int, int]]:
    """The whole range of levels and narrower ones that hold as many as possible.

    Args:
        levels: int8[n], n > 0.

    Returns:
        Lowest and highest level of each.
    """
    counts = np.roll(np.bincount(levels.view(np.uint8), minlength=256), 128)  # from -128 to 127
    first, last = np.flatnonzero(counts)[[0, -1]].tolist()
    below = np.append(0, np.cumsum(counts))
    found = [(first - 128, last - 128)]
    for width in _WIDTHS:
        if width <= last - first:
            inside = below[first + width : last + 2] - below[first : last + 2 - width]
            start = first + int(np.argmax(inside)) - 128
            found.append((start, start + width - 1))
    return found


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
