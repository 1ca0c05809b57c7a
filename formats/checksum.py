"""The one checksum of the format, so that its wording lives in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from formats.buffers import Buffer

CHECKSUM_NBYTES = 16


def digest(*buffers: Buffer) -> bytes:
    """xxh3-128, seed 0, of the buffers one after another; 16 bytes, canonical (big-endian)."""
    state = xxhash.xxh3_128(seed=0)
    for buffer in buffers:
        state.update(buffer)
    return state.digest()


def hexdigest(*buffers: Buffer) -> str:
    """The same as 32 lower-case hexadecimal digits."""
    return digest(*buffers).hex()
