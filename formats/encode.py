"""From a record to its chunks: the writer's choices, all of them made by size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from formats.codecs import bitmap, outliers, packing, planes, ranked, rice, signs, zstd
from formats.encoding import STREAMS, Chunk, RecordEntry
from formats.records import (
    DenseBits,
    DenseLevels,
    Factors,
    Record,
    SparseLevels,
    SparseValues,
    XorBits,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from formats.buffers import Buffer

PROBE_NBYTES = 4 << 20
"""A chunk whose first 4 MiB do not compress is stored as it is."""

FAST_LEVEL = 1
"""zstd level for bits, values and bitmaps. They hold entropy and few matches: on differences of
bf16 and f32 weights level 19 gained 2 to 5 percent at a hundredth of the speed, on bitmaps nothing
at the densities at which they are chosen."""

SHORT_NBYTES = 1 << 20
"""Packed levels up to this are compressed at the slow level as well: it gained 1 percent."""

SAMPLE_NUMEL = 1 << 19
"""Of about so many levels the range to pack is chosen."""

Payload = dict[str, tuple[str, bytes]]


def encode_record(
    record: Record, *, dtype: str, with_outliers: bool = True
) -> tuple[RecordEntry, dict[str, bytes]]:
    """Encodes a checked record.

    Args:
        record: What to encode.
        dtype: Of the tensor.
        with_outliers: Whether readers of the store know of outliers.

    Returns:
        Its entry and the bytes of every chunk by stream.
    """
    payload: Payload
    n_kept: int | None = None
    n_outliers: int | None = None
    level_range: tuple[int, int] | None = None
    value_dtype: str | None = None
    form: str | None = None
    rank: int | None = None
    match record:
        case SparseLevels():
            kind, n_kept = "sparse_levels", record.positions.size
            magnitudes = np.abs(record.levels.astype(np.int16))
            level_range = (1, int(magnitudes.max(initial=1)))
            payload = _encode_index(record.positions, record.numel, record.seed)
            payload["signs"] = _smaller(signs.encode(record.levels))
            if level_range != (1, 1):
                payload["magnitudes"] = ("raw", packing.encode(magnitudes, *level_range))
            payload["scales"] = _scales(record.scales)
        case SparseValues():
            kind, n_kept, value_dtype = "sparse_values", record.positions.size, record.dtype
            payload = _encode_index(record.positions, record.numel, record.seed)
            payload["values"] = _elements(record.values)
        case DenseLevels():
            kind = "dense_levels"
            level_range, payload = _dense(record.levels, with_outliers=with_outliers)
            payload["scales"] = _scales(record.scales)
            if "outliers" in payload:
                n_outliers = len(payload["outliers"][1])
        case XorBits():
            kind, value_dtype, payload = "xor_bits", record.dtype, {"bits": _elements(record.bits)}
        case DenseBits():
            kind, value_dtype, payload = (
                "dense_bits",
                record.dtype,
                {"bits": _elements(record.bits)},
            )
        case Factors():
            kind, value_dtype, form, rank = "factors", record.dtype, record.form, record.rank
            payload = {"factors": _elements(record.factors)}
            if record.rank:
                payload["scales"] = _scales(np.array([record.scale], np.float32))
    entry = RecordEntry(
        kind,
        tuple(
            Chunk(stream, payload[stream][0], len(payload[stream][1]))
            for stream in STREAMS
            if stream in payload
        ),
        n_kept,
        level_range,
        None if value_dtype == dtype else value_dtype,
        n_outliers,
        form,
        rank or None,
    )
    return entry, {stream: data for stream, (_, data) in payload.items()}


def _dense(levels: NDArray[np.int8], *, with_outliers: bool) -> tuple[tuple[int, int], Payload]:
    """The range that is packed and its chunks but the scales; with outliers where that is less."""
    if not levels.size:
        return (0, 0), {"levels": ("raw", b"")}
    whole, *narrower = outliers.ranges(levels)
    bounds = whole
    if with_outliers and narrower:
        sample = levels[:: levels.size // SAMPLE_NUMEL | 1]
        bounds = min((whole, *narrower), key=lambda tried: _sampled_nbytes(sample, tried))
    cut, positions, excess = outliers.split(levels, *bounds)
    index = rice.encode(positions, levels.size) if positions.size else None
    if index is None:
        return whole, {"levels": _symbols(packing.encode(levels, *whole))}
    return bounds, {
        "blocks": ("raw", index[0]),
        "gaps": ("raw", index[1]),
        "levels": _symbols(packing.encode(cut, *bounds)),
        "outliers": ("raw", excess),
    }


def _sampled_nbytes(sample: NDArray[np.int8], bounds: tuple[int, int]) -> int:
    """Bytes of a sample of levels if a range is packed and the others are outliers."""
    cut, positions, excess = outliers.split(sample, *bounds)
    nbytes = len(zstd.compress_symbols(packing.encode(cut, *bounds)))
    if positions.size:
        parts = (*(rice.encode(positions, sample.size) or ()), excess)
        nbytes += sum(len(zstd.compress_symbols(part)) for part in parts if part)
    return nbytes


def _encode_index(positions: NDArray[np.int64], numel: int, seed: int | None) -> Payload:
    """The smallest of Rice-coded gaps, ranks, bitmap and compressed bitmap."""
    coded: list[Payload] = []
    gaps = rice.encode(positions, numel)
    if gaps is not None:
        coded.append({"blocks": ("raw", gaps[0]), "gaps": ("raw", gaps[1])})
    if seed is not None:
        segments, ranks = ranked.encode(positions, numel, seed)
        coded.append({"segments": ("raw", segments), "ranks": ("raw", ranks)})
    # A bitmap of scattered bits compresses worse than gaps; one that gaps do not halve may not.
    bitmap_nbytes = bitmap.bitmap_nbytes(numel)
    if all(2 * _nbytes(payload) > bitmap_nbytes for payload in coded):
        codec, packed = _smaller(bitmap.encode(positions, numel), level=FAST_LEVEL)
        coded.append({"bitmap": (codec, packed)})
    return min(coded, key=_nbytes)


def _nbytes(payload: Payload) -> int:
    return sum(len(data) for _, data in payload.values())


def _smaller(raw: bytes, *, level: int = zstd.LEVEL) -> tuple[str, bytes]:
    """``raw`` or its zstd frame."""
    if _compresses(raw[:PROBE_NBYTES], len(raw)):
        frame = zstd.compress(raw, level=level)
        if len(frame) < len(raw):
            return "zstd", frame
    return "raw", raw


def _symbols(packed: bytes) -> tuple[str, bytes]:
    """Packed levels or their frame.

    Longer ones are searched for matches only where Huffman codes, of a bit a byte at least, are
    bound to be far from the entropy: a few outliers leave mostly zeros, one a byte.
    """
    if not packed:
        return "raw", packed
    frame = zstd.compress_symbols(packed)
    if len(packed) <= SHORT_NBYTES or len(frame) < len(packed) * 5 // 16:
        frame = min(frame, zstd.compress(packed), key=len)
    return ("zstd", frame) if len(frame) < len(packed) else ("raw", packed)


def _elements(array: NDArray[np.unsignedinteger]) -> tuple[str, bytes]:
    """Raw elements, their frame, or the frame of their byte planes."""
    itemsize = array.dtype.itemsize
    raw = array.tobytes()
    if itemsize == 1:
        return _smaller(raw, level=FAST_LEVEL)
    if _compresses(planes.split(raw[:PROBE_NBYTES], itemsize), len(raw)):
        frame = zstd.compress(planes.split(raw, itemsize), level=FAST_LEVEL)
        if len(frame) < len(raw):
            return "planes", frame
    return "raw", raw


def _compresses(probe: Buffer, nbytes: int) -> bool:
    """Whether the head of a long chunk gets smaller; short chunks are simply tried."""
    if nbytes <= PROBE_NBYTES:
        return nbytes > 0
    return len(zstd.compress(probe, level=1)) < 0.99 * len(probe)


def _scales(scales: NDArray[np.float32]) -> tuple[str, bytes]:
    return "raw", scales.astype("<f4", copy=False).tobytes()
