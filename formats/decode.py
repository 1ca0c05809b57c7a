"""From chunks back to a record. Sizes were checked when the directory was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from formats.codecs import bitmap, outliers, packing, planes, ranked, rice, signs, zstd
from formats.dtypes import raw_dtype
from formats.errors import CorruptStreamError, InvalidStateError
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
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from formats.buffers import Buffer
    from formats.encoding import RecordEntry

T = TypeVar("T", bound=np.generic)


class _Chunks:
    """The chunks of one record, decompressed to their known sizes."""

    def __init__(
        self,
        entry: RecordEntry,
        payload: Mapping[str, Buffer],
        *,
        numel: int,
        rows: int,
        dtype: str,
        seed: int | None,
    ) -> None:
        self._entry = entry
        self._payload = payload
        self._codecs = {chunk.stream: chunk.codec for chunk in entry.chunks}
        self._numel, self._rows = numel, rows
        self._dtype = dtype
        self.seed = seed if entry.is_ranked else None

    def __contains__(self, stream: str) -> bool:
        return stream in self._codecs

    def raw(self, stream: str) -> Buffer:
        """A chunk as its codec's input."""
        stored = self._payload[stream]
        codec = self._codecs[stream]
        if codec == "raw":
            return stored
        nbytes = self._entry.raw_nbytes(
            stream, numel=self._numel, rows=self._rows, dtype=self._dtype
        )
        content = zstd.decompress(stored, nbytes)
        if codec == "zstd":
            return content
        return planes.join(content, raw_dtype(self.dtype).itemsize)

    @property
    def dtype(self) -> str:
        """Of values and bits."""
        return self._entry.dtype or self._dtype

    def elements(self, stream: str) -> NDArray[np.unsignedinteger]:
        return planes.as_elements(self.raw(stream), raw_dtype(self.dtype))

    def positions(self, n_kept: int) -> NDArray[np.int64]:
        if "bitmap" in self:
            positions = bitmap.decode(self.raw("bitmap"), self._numel, n_kept)
        elif "ranks" in self:
            if self.seed is None:
                raise InvalidStateError("ranked positions are decoded with the seed of the tensor")
            coded = self.raw("segments"), self.raw("ranks")
            positions = ranked.decode(*coded, self._numel, n_kept, self.seed)
        else:
            positions = rice.decode(self.raw("blocks"), self.raw("gaps"), self._numel, n_kept)
        return _frozen(positions)

    def signed_levels(self, n_kept: int, low: int, high: int) -> NDArray[np.int8]:
        if "magnitudes" not in self:
            ones = signs.decode(self.raw("signs"), n_kept).view(np.int8)
            ones *= -2
            ones += 1
            return ones
        magnitudes = packing.decode(self.raw("magnitudes"), n_kept, low, high)
        levels = np.where(signs.decode(self.raw("signs"), n_kept), -magnitudes, magnitudes)
        if (levels == 128).any():
            raise CorruptStreamError("level +128 does not exist")
        return levels.astype(np.int8)

    def scales(self) -> NDArray[np.float32]:
        scales = np.frombuffer(self.raw("scales"), "<f4")
        if np.count_nonzero(np.isfinite(scales)) < scales.size:
            raise CorruptStreamError("a scale is not finite")
        return _frozen(scales)


def decode_record(
    entry: RecordEntry,
    payload: Mapping[str, Buffer],
    *,
    numel: int,
    dtype: str,
    rows: int = 1,
    seed: int | None = None,
) -> Record:
    """Decodes the record that ``entry`` describes; its arrays are read-only.

    Args:
        entry: Checked against the tensor's shape.
        payload: Stored bytes of every chunk by stream; raw ones are aliased, not copied.
        numel: Elements that the record covers.
        dtype: Of the tensor.
        rows: Extent of dimension 0, which factors are for.
        seed: Of its dither; ranked positions need it.

    Raises:
        CompressedFrameError: A frame is malformed or of another size.
        CorruptStreamError: A codec met something that it can not have written.
        InvalidStateError: Positions are ranked and there is no seed.
    """
    chunks = _Chunks(entry, payload, numel=numel, rows=rows, dtype=dtype, seed=seed)
    n_kept = entry.n_kept or 0
    low, high = entry.level_range or (0, 0)
    match entry.kind:
        case "sparse_levels":
            positions = chunks.positions(n_kept)  # first: they bound what else is allocated
            signed = chunks.signed_levels(n_kept, low, high)
            return SparseLevels(numel, positions, _frozen(signed), chunks.scales(), chunks.seed)
        case "sparse_values":
            return SparseValues(
                numel,
                chunks.positions(n_kept),
                chunks.elements("values"),
                chunks.dtype,
                chunks.seed,
            )
        case "dense_levels":
            levels = packing.decode(chunks.raw("levels"), numel, low, high)
            if entry.n_outliers is not None:
                at = chunks.positions(entry.n_outliers)
                outliers.restore_(levels, at, chunks.raw("outliers"), low, high)
            return DenseLevels(numel, _frozen(levels.astype(np.int8)), chunks.scales())
        case "xor_bits":
            return XorBits(numel, chunks.elements("bits"), chunks.dtype)
        case "factors":
            return Factors(
                numel,
                rows,
                entry.form or "",
                entry.rank or 0,
                chunks.elements("factors"),
                float(chunks.scales()[0]) if entry.rank else 1.0,
                chunks.dtype,
            )
        case _:
            return DenseBits(numel, chunks.elements("bits"), chunks.dtype)


def _frozen(array: NDArray[T]) -> NDArray[T]:
    array.setflags(write=False)
    return array
