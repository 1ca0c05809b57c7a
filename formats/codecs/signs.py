"""Sign bits of kept entries, eight a byte, lowest bit first, 1 = negative."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from formats.errors import CorruptStreamError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from formats.buffers import Buffer


def packed_nbytes(n_kept: int) -> int:
    """Bytes that the signs of ``n_kept`` entries take."""
    return -(-n_kept // 8)


def encode(levels: NDArray[np.int8]) -> bytes:
    """Packs the signs of int8[n] levels."""
    return np.packbits(levels < 0, bitorder="little").tobytes()


def decode(data: Buffer, n_kept: int) -> NDArray[np.bool_]:
    """bool[n_kept], true where negative.

    Raises:
        CorruptStreamError: A bit beyond the last entry is set.
    """
    if int.from_bytes(data[n_kept >> 3 :], "little") >> (n_kept & 7):
        raise CorruptStreamError("sign bits set beyond the last kept entry")
    bits = np.frombuffer(data, np.uint8)
    return np.unpackbits(bits, count=n_kept, bitorder="little").view(np.bool_)
