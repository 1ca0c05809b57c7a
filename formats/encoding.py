"""How a stored record is described: its kind, its chunks, and what sizes they must have.

A chunk is one tensor's share of a stream. All sizes follow from shape, dtype and counts, so they
are checked when a directory is read, before any payload is touched or allocated for.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from formats.canonical import JSON, as_int, as_list, as_str, closed
from formats.codecs import bitmap, packing, rice, segments, signs
from formats.dtypes import itemsize
from formats.errors import (
    MalformedIndexError,
    SizeMismatchError,
    UnknownEncodingError,
    located,
)
from formats.records import FORMS, factors_count

if TYPE_CHECKING:
    from collections.abc import Mapping

STREAMS = (
    "blocks",
    "gaps",
    "bitmap",
    "segments",
    "ranks",
    "signs",
    "magnitudes",
    "levels",
    "scales",
    "values",
    "bits",
    "outliers",
    "factors",
)
SECTION_COMPRESSED = frozenset({"blocks", "segments", "magnitudes", "scales", "outliers"})
"""Streams that are compressed as whole sections, because their chunks are small."""

CHUNK_CODECS = {
    "blocks": ("raw",),
    "gaps": ("raw",),
    "bitmap": ("raw", "zstd"),
    "segments": ("raw",),
    "ranks": ("raw",),
    "signs": ("raw", "zstd"),
    "magnitudes": ("raw",),
    "levels": ("raw", "zstd"),
    "scales": ("raw",),
    "values": ("raw", "zstd", "planes"),
    "bits": ("raw", "zstd", "planes"),
    "outliers": ("raw",),
    "factors": ("raw", "zstd", "planes"),
}
SPARSE_KINDS = ("sparse_levels", "sparse_values")
LEVEL_KINDS = ("sparse_levels", "dense_levels")
KINDS = (*SPARSE_KINDS, "dense_levels", "xor_bits", "dense_bits", "factors")


class Chunk(NamedTuple):
    """``nbytes`` bytes of a stream, encoded with ``codec``: raw, zstd or planes (then zstd)."""

    stream: str
    codec: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class RecordEntry:
    """One stored record.

    Attributes:
        kind: Which record class it decodes to.
        chunks: One chunk per stream, in the order of ``STREAMS``.
        n_kept: Entries of a sparse record.
        level_range: Lowest and highest level (for sparse records of their magnitudes).
        dtype: Of values or bits where it is not the tensor's own.
        n_outliers: Dense levels beyond ``level_range``, where there are any.
        form: Of factors, what they do.
        rank: Of factors that are a product.
    """

    kind: str
    chunks: tuple[Chunk, ...]
    n_kept: int | None = None
    level_range: tuple[int, int] | None = None
    dtype: str | None = None
    n_outliers: int | None = None
    form: str | None = None
    rank: int | None = None

    @property
    def nbytes(self) -> int:
        """Stored bytes (before the compression of whole sections)."""
        return sum(chunk.nbytes for chunk in self.chunks)

    @property
    def is_ranked(self) -> bool:
        """Whether positions are coded in the order of their dither."""
        return any(chunk.stream == "ranks" for chunk in self.chunks)

    @property
    def encoding(self) -> str:
        """For people: kind and index, as in ``sparse_levels/rice``, or form."""
        if self.form is not None:
            return f"{self.kind}/{self.form}"
        if self.kind not in SPARSE_KINDS:
            return self.kind
        streams = {chunk.stream: chunk for chunk in self.chunks}
        if self.is_ranked:
            return f"{self.kind}/ranked"
        if "gaps" in streams:
            return f"{self.kind}/rice"
        suffix = "" if streams["bitmap"].codec == "raw" else "+zstd"
        return f"{self.kind}/bitmap{suffix}"

    def to_json(self) -> JSON:
        """The record's object in a task directory."""
        fields: dict[str, JSON] = {
            "kind": self.kind,
            "chunks": [[chunk.stream, chunk.codec, chunk.nbytes] for chunk in self.chunks],
        }
        if self.n_kept is not None:
            fields["n_kept"] = self.n_kept
        if self.level_range is not None:
            fields["levels"] = list(self.level_range)
        if self.dtype is not None:
            fields["dtype"] = self.dtype
        if self.n_outliers is not None:
            fields["n_outliers"] = self.n_outliers
        if self.form is not None:
            fields["form"] = self.form
        if self.rank is not None:
            fields["rank"] = self.rank
        return fields

    @classmethod
    def from_json(cls, value: JSON, where: str) -> RecordEntry:
        """Inverse of :meth:`to_json`; sizes are checked by :meth:`check`."""
        optional = ("n_kept", "levels", "dtype", "n_outliers", "form", "rank")
        fields = closed(value, where, required=("kind", "chunks"), optional=optional)
        with located(where=where):
            kind = as_str(fields["kind"], "kind")
            if kind not in KINDS:
                raise UnknownEncodingError("unknown record kind", actual=repr(kind))
            if ("n_kept" in fields) != (kind in SPARSE_KINDS):
                raise MalformedIndexError("only sparse records have n_kept")
            if ("levels" in fields) != (kind in LEVEL_KINDS):
                raise MalformedIndexError("only level records have levels")
            if "n_outliers" in fields and kind != "dense_levels":
                raise MalformedIndexError("only dense levels have outliers")
            form = _form(fields, kind)
            return cls(
                kind,
                tuple(map(_chunk, as_list(fields["chunks"], "chunks"))),
                as_int(fields["n_kept"], "n_kept") if "n_kept" in fields else None,
                _level_range(fields["levels"], kind) if "levels" in fields else None,
                as_str(fields["dtype"], "dtype") if "dtype" in fields else None,
                as_int(fields["n_outliers"], "n_outliers", low=1)
                if "n_outliers" in fields
                else None,
                form,
                as_int(fields["rank"], "rank", low=1) if "rank" in fields else None,
            )

    def check(self, *, numel: int, rows: int, dtype: str) -> None:
        """Checks the set of chunks and every size that is known beforehand.

        Args:
            numel: Elements that the record covers.
            rows: Extent of dimension 0 (1 for a scalar).
            dtype: Of the tensor.

        Raises:
            SizeMismatchError: A count or length contradicts them.
            UnknownEncodingError: A chunk is of a stream that the kind does not have.
        """
        for count, what in ((self.n_kept, "kept entries"), (self.n_outliers, "outliers")):
            if count is not None and count > numel:
                raise SizeMismatchError(
                    f"more {what} than elements", expected=f"<= {numel}", actual=count
                )
        streams = tuple([chunk.stream for chunk in self.chunks])
        possible = _stream_sets(
            self.kind,
            has_magnitudes=self.level_range != (1, 1),
            has_outliers=self.n_outliers is not None,
            has_rank=self.rank is not None,
        )
        if streams not in possible:
            raise UnknownEncodingError(
                f"wrong streams for a {self.kind} record",
                expected=" or ".join("+".join(names) for names in possible),
                actual="+".join(streams),
            )
        for chunk in self.chunks:
            self._check_chunk(chunk, numel=numel, rows=rows, dtype=dtype)

    def raw_nbytes(self, stream: str, *, numel: int, rows: int, dtype: str) -> int:
        """Decoded bytes of a chunk whose size follows from counts and shape."""
        count = numel if self.n_kept is None else self.n_kept
        low, high = self.level_range or (0, 0)
        match stream:
            case "blocks":
                return rice.headers_nbytes(numel)
            case "bitmap":
                return bitmap.bitmap_nbytes(numel)
            case "signs":
                return signs.packed_nbytes(count)
            case "magnitudes" | "levels":
                return packing.packed_nbytes(count, low, high)
            case "outliers":
                return self.n_outliers or 0
            case "factors":
                n = factors_count(self.form or "", self.rank or 0, numel=numel, rows=rows)
                return n * itemsize(self.dtype or dtype)
            case _:
                return count * itemsize(self.dtype or dtype)

    def _check_chunk(self, chunk: Chunk, *, numel: int, rows: int, dtype: str) -> None:
        if chunk.stream in ("gaps", "ranks"):
            return
        if chunk.stream == "segments":
            expected = [segments.N_BUCKETS]
            fits = chunk.nbytes <= segments.N_BUCKETS
        elif chunk.stream == "scales":
            expected = [4] if rows == 1 or self.kind == "factors" else [4, 4 * rows]
            fits = chunk.nbytes in expected
        else:
            raw = self.raw_nbytes(chunk.stream, numel=numel, rows=rows, dtype=dtype)
            expected = [raw]
            fits = chunk.nbytes == raw if chunk.codec == "raw" else 0 < chunk.nbytes < raw
        if not fits:
            raise SizeMismatchError(
                f"wrong length of a chunk of {chunk.stream} ({chunk.codec})",
                expected=" or ".join(f"{nbytes} bytes" for nbytes in expected),
                actual=f"{chunk.nbytes} bytes",
            )


def _chunk(value: JSON) -> Chunk:
    stream, codec, nbytes = as_list(value, "chunk", lengths=(3,))
    stream, codec = as_str(stream, "stream"), as_str(codec, "codec")
    if codec not in CHUNK_CODECS.get(stream, ()):
        raise UnknownEncodingError("unknown stream or codec", actual=f"{stream!r} as {codec!r}")
    return Chunk(stream, codec, as_int(nbytes, "chunk length"))


def _level_range(value: JSON, kind: str) -> tuple[int, int]:
    low, high = as_list(value, "levels", lengths=(2,))
    bounds = (1, 128) if kind == "sparse_levels" else (-128, 127)
    lowest = as_int(low, "lowest level", low=bounds[0], high=bounds[1])
    highest = as_int(high, "highest level", low=lowest, high=bounds[1])
    if kind == "sparse_levels" and lowest != 1:
        raise MalformedIndexError("magnitudes are counted from 1", actual=lowest)
    return lowest, highest


def _form(fields: Mapping[str, JSON], kind: str) -> str | None:
    """What factors do; None of other kinds, which have neither form nor rank."""
    if kind != "factors":
        if {"form", "rank"} & fields.keys():
            raise MalformedIndexError("only factors have form and rank")
        return None
    form = as_str(fields.get("form"), "form")
    if form not in FORMS:
        raise UnknownEncodingError("unknown form of factors", actual=repr(form))
    if ("rank" in fields) != (form in FORMS[:2]):
        raise MalformedIndexError("products have a rank, other factors none")
    return form


@functools.cache
def _stream_sets(
    kind: str, *, has_magnitudes: bool, has_outliers: bool, has_rank: bool
) -> tuple[tuple[str, ...], ...]:
    """The sequences of streams that a kind may have."""
    rest: tuple[str, ...]
    match kind:
        case "sparse_levels":
            rest = ("signs", "magnitudes", "scales") if has_magnitudes else ("signs", "scales")
        case "sparse_values":
            rest = ("values",)
        case "dense_levels":
            if has_outliers:
                return (("blocks", "gaps", "levels", "scales", "outliers"),)
            return (("levels", "scales"),)
        case "factors":
            return (("scales", "factors"),) if has_rank else (("factors",),)
        case _:
            return (("bits",),)
    indices = (("blocks", "gaps"), ("bitmap",), ("segments", "ranks"))
    return tuple((*index, *rest) for index in indices)
