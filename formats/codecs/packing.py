"""Small integers, several a byte.

A byte holds as many base-``n`` digits as fit, the first element in the lowest digit, where ``n`` is
the number of values between the lowest and the highest level. Packing first leaves zstd little
more than its entropy coder to do, which it does within two percent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from formats.errors import CorruptStreamError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from formats.buffers import Buffer


def digits_per_byte(n_levels: int) -> int:
    """Elements a byte holds when each takes one of ``n_levels`` >= 2 values: 8, 5, 4, 3, 2 or 1."""
    digits = 1
    while n_levels ** (digits + 1) <= 256:
        digits += 1
    return digits


def packed_nbytes(numel: int, low: int, high: int) -> int:
    """Bytes that ``numel`` levels within ``low`` to ``high`` take; none when they are all equal."""
    if low == high:
        return 0
    return -(-numel // digits_per_byte(high - low + 1))


def encode(levels: NDArray[np.integer], low: int, high: int) -> bytes:
    """Packs integers within ``low`` to ``high``."""
    if low == high:
        return b""
    n_levels = high - low + 1
    digits = digits_per_byte(n_levels)
    padded = np.zeros((-(-levels.size // digits), digits), np.uint8)
    padded.reshape(-1)[: levels.size] = levels.astype(np.int16) - low
    packed = np.zeros(len(padded), np.uint8)
    for column in reversed(range(digits)):
        packed *= np.uint8(n_levels % 256)
        packed += padded[:, column]
    return packed.tobytes()


def decode(data: Buffer, numel: int, low: int, high: int) -> NDArray[np.int16]:
    """int16[numel] levels.

    Raises:
        CorruptStreamError: A byte has more than its digits can make, or a digit behind the last
            element is not zero.
    """
    if low == high:
        return np.full(numel, low, np.int16)
    n_levels = high - low + 1
    digits = digits_per_byte(n_levels)
    packed = np.frombuffer(data, np.uint8)
    if packed.size and int(packed.max()) >= n_levels**digits:
        raise CorruptStreamError("packed byte out of range", expected=f"< {n_levels**digits}")
    powers = n_levels ** np.arange(digits)
    table = (np.arange(256)[:, None] // powers % n_levels + low).astype(np.int16)
    levels = table[packed].reshape(-1)
    if (levels[numel:] != low).any():
        raise CorruptStreamError("packed digits behind the last element")
    return levels[:numel]
