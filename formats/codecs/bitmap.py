"""Kept positions as one bit per element, lowest bit first, 1 = kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from formats.codecs import compiled
from formats.errors import CorruptStreamError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from formats.buffers import Buffer


def bitmap_nbytes(numel: int) -> int:
    """Bytes of the bitmap of a tensor of ``numel`` elements."""
    return -(-numel // 8)


def encode(positions: NDArray[np.int64], numel: int) -> bytes:
    """Bitmap of strictly increasing positions; works in the kept entries, not in ``numel``."""
    bitmap = np.zeros(bitmap_nbytes(numel), np.uint8)
    if positions.size:
        byte_of = positions >> 3
        bits = np.left_shift(1, positions & 7).astype(np.uint8)
        first_in_byte = np.flatnonzero(np.diff(byte_of, prepend=-1))
        bitmap[byte_of[first_in_byte]] = np.bitwise_or.reduceat(bits, first_in_byte)
    return bitmap.tobytes()


def decode(data: Buffer, numel: int, n_kept: int) -> NDArray[np.int64]:
    """int64[n_kept] positions in increasing order.

    Raises:
        CorruptStreamError: A bit beyond the tensor is set, or the count is another.
    """
    if compiled.is_worth_it(n_kept):
        positions = np.empty(n_kept, np.int64)
        if compiled.decode_bitmap(data, positions) == compiled.SOUND:
            return _within(positions, numel)  # else numpy says what is wrong
    bitmap = np.frombuffer(data, np.uint8)
    occupied = np.flatnonzero(bitmap)
    bits = np.unpackbits(bitmap[occupied], bitorder="little").reshape(-1, 8)
    rows, columns = np.nonzero(bits)
    positions = occupied[rows] * 8 + columns
    if positions.size != n_kept:
        raise CorruptStreamError(
            "wrong number of bits set in a bitmap", expected=n_kept, actual=positions.size
        )
    return _within(positions.astype(np.int64, copy=False), numel)


def _within(positions: NDArray[np.int64], numel: int) -> NDArray[np.int64]:
    if positions.size and positions[-1] >= numel:
        raise CorruptStreamError("bitmap has a bit set beyond the tensor", expected=f"< {numel}")
    return positions
