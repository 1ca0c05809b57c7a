"""Byte planes: all first bytes, then all second bytes, and so on.

Exponents and signs sit in the high bytes of floats and repeat; grouping them is what lets zstd
find that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from formats.buffers import Buffer


def split(data: Buffer, itemsize: int) -> bytes:
    """Regroups little-endian elements of ``itemsize`` bytes by byte position."""
    return np.frombuffer(data, np.uint8).reshape(-1, itemsize).T.tobytes()


def join(data: Buffer, itemsize: int) -> bytes:
    """Inverse of :func:`split`."""
    return np.frombuffer(data, np.uint8).reshape(itemsize, -1).T.tobytes()


def as_elements(data: Buffer, dtype: np.dtype[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """Read-only view of raw bytes as unsigned integers."""
    elements = np.frombuffer(data, dtype)
    elements.flags.writeable = False
    return elements
