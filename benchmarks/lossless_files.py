"""General compressors on a fine-tune's weights as they are: bytes of what they make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import zstandard

from benchmarks.methods.lossless import ZIPNN_DTYPES, zipnn_of
from nps_store.checkpoint import raw_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from nps_store.checkpoint import Checkpoint

LEVEL = 10
"""At 19 a model of 90 MB takes half a minute and becomes .4 % smaller."""


def files_nbytes(checkpoint: Checkpoint) -> int:
    """As they are."""
    return sum(file.stat().st_size for file in checkpoint.path.glob("*.safetensors"))


def zstd_nbytes(checkpoint: Checkpoint) -> int:
    """A frame for each of its safetensors files."""
    compressor = zstandard.ZstdCompressor(level=LEVEL, threads=-1)
    files = sorted(checkpoint.path.glob("*.safetensors"))
    return sum(len(compressor.compress(file.read_bytes())) for file in files)


def zipnn_nbytes(checkpoint: Checkpoint) -> int:
    """A frame for each tensor.

    Raises:
        ModuleNotFoundError: zipnn is not installed.
    """
    total = 0
    for name in checkpoint.names:
        raw = bytes(raw_bytes(checkpoint.tensor(name)))
        dtype = checkpoint.dtype(name)
        if dtype in ZIPNN_DTYPES and raw:
            raw = min(bytes(zipnn_of(dtype).compress(raw)), raw, key=len)
        total += len(raw)
    return total


LOSSLESS: dict[str, Callable[[Checkpoint], int]] = {
    f"zstd -{LEVEL}": zstd_nbytes,
    "zipnn": zipnn_nbytes,
}
