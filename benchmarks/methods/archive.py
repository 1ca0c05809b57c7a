"""The bytes of a method: records and arrays, each in its smallest form, behind a compressed header.

Records go through the codecs of `formats`, which choose by size among Rice-coded gaps, bitmaps,
packed levels and byte planes; what the container compresses as whole sections is compressed here.
"""

from __future__ import annotations

import json
import struct
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from formats.codecs import planes, zstd
from formats.decode import decode_record
from formats.encode import encode_record
from formats.encoding import SECTION_COMPRESSED, RecordEntry
from formats.records import DenseLevels, SparseLevels

Array: TypeAlias = NDArray[Any]
Part: TypeAlias = SparseLevels | DenseLevels | Array
_LENGTH = struct.Struct("<I")
_LONG_NBYTES = 16 << 20
"""Longer arrays of wide elements are tried as byte planes only: the other forms never won there."""


def pack(parts: dict[str, Part]) -> bytes:
    """One blob of named parts."""
    header: list[list[Any]] = []
    blobs: list[bytes] = []
    for name, part in parts.items():
        if isinstance(part, np.ndarray):
            form, blob = _smallest(part)
            header.append([name, part.dtype.str, list(part.shape), form, len(blob)])
            blobs.append(blob)
        else:
            entry, payload = encode_record(part, dtype="F32")
            chunks = {stream: _section(stream, blob) for stream, blob in payload.items()}
            sizes = [[stream, form, len(blob)] for stream, (form, blob) in chunks.items()]
            header.append([name, entry.to_json(), part.numel, sizes])
            blobs += [blob for _, blob in chunks.values()]
    index = zstd.compress(json.dumps(header, separators=(",", ":")).encode())
    return b"".join([_LENGTH.pack(len(index)), index, *blobs])


def unpack(data: bytes) -> dict[str, Part]:
    """Inverse of `pack`."""
    end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    frame = data[_LENGTH.size : end]
    header = json.loads(zstd.decompress(frame, zstd.declared_nbytes(frame)))
    parts: dict[str, Part] = {}
    for name, *fields in header:
        if isinstance(fields[0], str):
            dtype, shape, form, nbytes = fields
            raw = _restore(form, data[end : end + nbytes], np.dtype(dtype).itemsize)
            parts[name] = np.frombuffer(raw, dtype).reshape(shape)
            end += nbytes
        else:
            entry, numel, sizes = fields
            payload = {}
            for stream, form, nbytes in sizes:
                payload[stream] = _restore(form, data[end : end + nbytes], 1)
                end += nbytes
            record = decode_record(
                RecordEntry.from_json(entry, name), payload, numel=numel, dtype="F32"
            )
            if not isinstance(record, SparseLevels | DenseLevels):
                raise TypeError(f"part {name!r} is no record of levels")
            parts[name] = record
    return parts


def _section(stream: str, blob: bytes) -> tuple[str, bytes]:
    if stream in SECTION_COMPRESSED and blob:
        frame = zstd.compress(blob)
        if len(frame) < len(blob):
            return "zstd", frame
    return "raw", blob


def _smallest(array: Array) -> tuple[str, bytes]:
    raw = np.ascontiguousarray(array).tobytes()
    forms = {"raw": raw}
    wide = array.dtype.itemsize > 1
    if raw:
        if not wide or len(raw) <= _LONG_NBYTES:
            forms["zstd"] = zstd.compress(raw)
        if wide:
            forms["planes"] = zstd.compress(planes.split(raw, array.dtype.itemsize))
    form = min(forms, key=lambda f: len(forms[f]))
    return form, forms[form]


def _restore(form: str, blob: bytes, itemsize: int) -> bytes:
    if form == "raw":
        return blob
    raw = zstd.decompress(blob, zstd.declared_nbytes(blob))
    return planes.join(raw, itemsize) if form == "planes" else raw
