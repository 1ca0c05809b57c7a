"""Kept positions as Rice-coded gaps in blocks of 65,536 elements.

Per block a header ``{u16 count, u8 k, u16 payload bytes}`` and a payload: the low ``k`` bits of
every code one after another, then every quotient ``code >> k`` as that many zeros and a one, padded
with zeros to a whole byte; bits fill bytes from the lowest. A code is the gap to the previous kept
offset of the block minus one, for the first the offset itself. Keeping low bits and unary parts
apart is what lets both be decoded for all blocks at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from formats.codecs import compiled
from formats.errors import CorruptStreamError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from formats.buffers import Buffer

BLOCK = 1 << 16
HEADER = np.dtype([("count", "<u2"), ("k", "u1"), ("payload", "<u2")])
MAX_K = 15
_BLOCKS_A_BATCH = 1024


def n_blocks(numel: int) -> int:
    """Blocks of a tensor of ``numel`` elements; the last one may be short."""
    return -(-numel // BLOCK)


def headers_nbytes(numel: int) -> int:
    """Bytes of the block headers of a tensor."""
    return n_blocks(numel) * HEADER.itemsize


def encode(positions: NDArray[np.int64], numel: int) -> tuple[bytes, bytes] | None:
    """Block headers and payloads of strictly increasing positions.

    Returns:
        ``(headers, payloads)``, or None when a block's count or payload does not fit 16 bits.
    """
    headers = np.zeros(n_blocks(numel), HEADER)
    edges = np.searchsorted(positions, np.arange(len(headers) + 1) * BLOCK)
    counts = np.diff(edges)
    if counts.size and counts.max() > 0xFFFF:
        return None
    headers["count"] = counts
    payloads = []
    for first in range(0, len(headers), _BLOCKS_A_BATCH):
        batch = headers[first : first + _BLOCKS_A_BATCH]
        kept = positions[edges[first] : edges[first + len(batch)]]
        payload = _encode_batch(kept, batch)
        if payload is None:
            return None
        payloads.append(payload)
    return headers.tobytes(), b"".join(payloads)


def decode(headers: Buffer, payloads: Buffer, numel: int, n_kept: int) -> NDArray[np.int64]:
    """int64[n_kept] positions in increasing order.

    Raises:
        CorruptStreamError: Headers and payloads contradict each other, the count or the tensor.
    """
    blocks = np.frombuffer(headers, HEADER)
    counts = blocks["count"].astype(np.int64)
    nbytes = blocks["payload"].astype(np.int64)
    data = np.frombuffer(payloads, np.uint8)
    if counts.sum() != n_kept or nbytes.sum() != data.size or (blocks["k"] > MAX_K).any():
        raise CorruptStreamError("block headers contradict the directory")
    if (counts * (blocks["k"].astype(np.int64) + 1) > nbytes * 8).any():
        raise CorruptStreamError("a block's payload is too short for its count")
    positions = np.empty(n_kept, np.int64)
    if compiled.is_worth_it(n_kept):
        k = blocks["k"].astype(np.int64)
        _check(compiled.decode_blocks(payloads, counts, k, nbytes, positions))
    else:
        _decode_batches(blocks, data, positions)
    if n_kept and positions[-1] >= numel:
        raise CorruptStreamError("kept position beyond the tensor", expected=f"< {numel}")
    return positions


def _decode_batches(
    blocks: NDArray[np.void], data: NDArray[np.uint8], positions: NDArray[np.int64]
) -> None:
    """Fills ``positions`` from as many blocks at a time as keeps the arrays small."""
    entry = byte = 0
    for first in range(0, len(blocks), _BLOCKS_A_BATCH):
        batch = blocks[first : first + _BLOCKS_A_BATCH]
        n_bytes = int(batch["payload"].sum(dtype=np.int64))
        offsets = _decode_batch(batch, data[byte : byte + n_bytes])
        positions[entry : entry + offsets.size] = offsets + first * BLOCK
        entry += offsets.size
        byte += n_bytes


def _encode_batch(kept: NDArray[np.int64], headers: NDArray[np.void]) -> bytes | None:
    """Payloads of consecutive blocks; fills ``k`` and ``payload`` of their headers."""
    counts = headers["count"].astype(np.int64)
    block = np.repeat(np.arange(len(headers)), counts)
    offsets = (kept & (BLOCK - 1)).astype(np.int32)
    first = _starts(counts)
    codes = np.diff(offsets, prepend=0) - 1
    codes[first[counts > 0]] = offsets[first[counts > 0]]
    k, n_bits = _cheapest_k(codes, counts, first)
    nbytes = -(-n_bits // 8)
    if nbytes.size and nbytes.max() > 0xFFFF:
        return None
    headers["k"], headers["payload"] = k, nbytes

    k_of = k[block]
    rank = np.arange(codes.size) - first[block]
    block_bit = _starts(nbytes) * 8
    low_bit = block_bit[block] + rank * k_of
    quotients = codes >> k_of
    ones = np.cumsum(quotients + 1)
    ones -= (ones - quotients - 1)[first[block]] if ones.size else 0
    bits = np.zeros(int(nbytes.sum()) * 8, np.uint8)
    bits[(block_bit + counts * k)[block] + ones - 1] = 1
    for bit in range(int(k.max(initial=0))):
        entries = np.flatnonzero((k_of > bit) & (codes >> bit & 1 == 1))
        bits[low_bit[entries] + bit] = 1
    return np.packbits(bits, bitorder="little").tobytes()


def _decode_batch(headers: NDArray[np.void], data: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Positions of consecutive blocks, relative to the first of them."""
    counts = headers["count"].astype(np.int64)
    k = headers["k"].astype(np.int64)
    first = _starts(counts)
    block = np.repeat(np.arange(len(headers)), counts)
    block_bit = _starts(headers["payload"].astype(np.int64)) * 8
    unary_bit = block_bit + counts * k
    bits = np.unpackbits(data, bitorder="little")

    low_bit = block_bit[block] + (np.arange(block.size) - first[block]) * k[block]
    low = np.zeros(block.size, np.int64)
    for bit in range(int(k.max(initial=0))):
        entries = np.flatnonzero(k[block] > bit)
        low[entries] |= bits[low_bit[entries] + bit].astype(np.int64) << bit

    low_regions = np.zeros(bits.size + 1, np.int8)
    np.add.at(low_regions, block_bit, 1)
    np.add.at(low_regions, unary_bit, -1)
    bits[np.cumsum(low_regions[:-1], dtype=np.int8).view(np.bool_)] = 0
    ones = np.flatnonzero(bits)
    edges = np.append(block_bit, bits.size)
    if not np.array_equal(np.diff(np.searchsorted(ones, edges)), counts):
        _check(compiled.WRONG_COUNT)
    previous = np.empty_like(ones)
    previous[1:] = ones[:-1]
    previous[first[counts > 0]] = unary_bit[counts > 0] - 1
    gaps = ((ones - previous - 1) << k[block]) + low + 1
    ends = np.cumsum(gaps)
    offsets = ends - (ends - gaps)[first[block]] - 1 if ends.size else ends
    if offsets.size and offsets.max() >= BLOCK:
        _check(compiled.BEYOND_BLOCK)
    return offsets + block * BLOCK


def _check(outcome: int) -> None:
    """Raises what went wrong while blocks were decoded."""
    if outcome == compiled.WRONG_COUNT:
        raise CorruptStreamError("a block's unary codes contradict its count")
    if outcome == compiled.BEYOND_BLOCK:
        raise CorruptStreamError("an offset lies beyond its block", expected=f"< {BLOCK}")


def _cheapest_k(
    codes: NDArray[np.int32], counts: NDArray[np.int64], first: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per block the ``k`` of fewest bits (the smallest of equals) and that number of bits."""
    best_k = np.zeros(counts.size, np.int64)
    best_bits = np.zeros(counts.size, np.int64)
    occupied = np.flatnonzero(counts)
    if not occupied.size:
        return best_k, best_bits
    starts = first[occupied]
    quotients = codes.astype(np.int64)
    best = np.add.reduceat(quotients, starts) + counts[occupied]
    chosen = np.zeros(occupied.size, np.int64)
    for k in range(1, MAX_K + 1):
        quotients >>= 1
        bits = np.add.reduceat(quotients, starts) + counts[occupied] * (k + 1)
        better = bits < best
        best[better], chosen[better] = bits[better], k
    best_k[occupied], best_bits[occupied] = chosen, best
    return best_k, best_bits


def _starts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Start of every item when items of these lengths follow each other."""
    return np.cumsum(lengths) - lengths
