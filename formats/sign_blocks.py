"""The usual records of a task decoded all at once, into the form that a switch reads.

One record at a time, as :mod:`formats.decode` has them, more time goes into the hundreds of records
than into their bytes. Here one call takes all signs at ranked positions from the bytes of the file
to 16-bit offsets in blocks, and the sign bits stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from formats.codecs import compiled, ranked
from formats.tensor_table import SIGN_STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from formats.buffers import Buffer
    from formats.chunk_places import ChunkPlaces
    from formats.tensor_table import SignRows

BLOCK = 1 << 16
MAX_STARTS = 1 << 24
"""Of all tensors together, which is a terabyte of elements: a file of few bytes can claim more."""
_ALIGNMENT = 16


@dataclass(frozen=True, eq=False, slots=True)
class SignBlocks:
    """Signs at positions in blocks of 65,536 elements, a row a tensor.

    Attributes:
        data: uint8[...], one run of bytes that holds everything.
        numels: int64[n], elements of each tensor.
        n_kept: int64[n], entries of each tensor.
        starts: int64[n], where in the run the int64[n_blocks + 1] first entries of the blocks are.
        offsets: int64[n], where the uint16[n_kept] offsets within the blocks are, increasing.
        signs: int64[n], where the bits of the signs are, eight a byte, lowest first, 1 = negative.
        scales: int64[n], where the float32[n_scales] scales are.
        n_scales: int64[n], 1 or the rows of the tensor.
    """

    data: NDArray[np.uint8]
    numels: NDArray[np.int64]
    n_kept: NDArray[np.int64]
    starts: NDArray[np.int64]
    offsets: NDArray[np.int64]
    signs: NDArray[np.int64]
    scales: NDArray[np.int64]
    n_scales: NDArray[np.int64]


def decode(
    rows: SignRows,
    seeds: NDArray[np.uint64],
    places: ChunkPlaces,
    stream: Callable[[str], Buffer],
) -> SignBlocks | None:
    """Decodes the records of some rows.

    Args:
        rows: Checked against the shapes.
        seeds: uint64[n], of the tensors.
        places: Of their chunks.
        stream: Gives a stream's decoded and verified bytes.

    Returns:
        None where something is wrong; what it is, decoding one record after another tells.
    """
    n_headers, n_ranks, _, n_scales = rows.nbytes.T
    n_starts = -(-rows.numels // BLOCK) + 1
    if (rows.n_kept > n_ranks * ranked.MAX_KEPT_A_BYTE).any() or n_starts.sum() > MAX_STARTS:
        return None
    segments, ranks, *rest = map(stream, SIGN_STREAMS)
    headers, signs, scales = (np.frombuffer(each, np.uint8) for each in (segments, *rest))
    headers_end, ranks_end, signs_end, scales_end = (
        places.ends(name, rows.numbers) for name in SIGN_STREAMS
    )
    is_padded = (rows.n_kept & 7) > 0
    padded = signs[signs_end[is_padded] - 1] >> (rows.n_kept[is_padded] & 7)
    if padded.any() or not np.isfinite(scales.view("<f4")).all():
        return None

    run = _Run()
    first_start = run.add(n_starts.sum() * 8)
    first_offset = run.add(rows.n_kept.sum() * 2)
    first_sign, first_scale = run.add(signs.size), run.add(scales.size)
    data = np.empty(run.nbytes, np.uint8)
    data[first_sign : first_sign + signs.size] = signs
    data[first_scale : first_scale + scales.size] = scales
    starts, offsets = np.cumsum(n_starts) - n_starts, np.cumsum(rows.n_kept) - rows.n_kept
    is_sound = compiled.decode_ranks(
        headers,
        ranks,
        np.column_stack(
            [
                headers_end - n_headers, n_headers, ranks_end - n_ranks, n_ranks,
                rows.numels, seeds.view(np.int64), starts, offsets, rows.n_kept,
            ]
        ),
        data[first_start:first_offset][: 8 * n_starts.sum()].view(np.int64),
        data[first_offset:first_sign][: 2 * rows.n_kept.sum()].view(np.uint16),
    )  # fmt: skip
    if not is_sound:
        return None
    return SignBlocks(
        data=data,
        numels=rows.numels,
        n_kept=rows.n_kept,
        starts=first_start + 8 * starts,
        offsets=first_offset + 2 * offsets,
        signs=first_sign + signs_end - -(-rows.n_kept // 8),
        scales=first_scale + scales_end - n_scales,
        n_scales=n_scales // 4,
    )


class _Run:
    """Lays parts out one after another."""

    def __init__(self) -> None:
        self.nbytes = 0

    def add(self, nbytes: int) -> int:
        """Where a part of so many bytes begins."""
        start = -(-self.nbytes // _ALIGNMENT) * _ALIGNMENT
        self.nbytes = start + int(nbytes)
        return start
