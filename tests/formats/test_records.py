from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.decode import decode_record
from formats.dtypes import ITEMSIZES, raw_dtype
from formats.encode import encode_record
from formats.encoding import RecordEntry
from formats.errors import InvalidRecordError, UnknownEncodingError
from formats.records import (
    FORMS,
    DenseBits,
    DenseLevels,
    Factors,
    Record,
    SparseLevels,
    SparseValues,
    XorBits,
    check_covers,
    check_record,
    factors_count,
)
from tests.formats.stores import plain

SHAPES = [(0,), (1,), (), (5, 3), (3, 65_536), (7, 9_999), (0, 4)]


@st.composite
def records(draw: st.DrawFn) -> tuple[Record, tuple[int, ...], str]:
    """A record, the shape it covers and the dtype of its tensor."""
    shape = draw(st.sampled_from(SHAPES))
    numel = int(np.prod(shape))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    rate = draw(st.sampled_from([0.0, 0.001, 0.05, 0.4, 1.0]))
    positions = np.flatnonzero(rng.random(numel) < rate).astype(np.int64)
    rows = shape[0] if shape else 1
    scales = rng.standard_normal(draw(st.sampled_from([1, rows]))).astype(np.float32)
    largest = draw(st.sampled_from([1, 2, 127]))
    levels = rng.integers(1, largest + 1, numel) * rng.choice([-1, 1], numel)
    dtype = draw(st.sampled_from(sorted(ITEMSIZES)))
    raw = raw_dtype(dtype)
    bits = rng.integers(0, 255, numel * raw.itemsize, dtype=np.uint8).view(raw)
    if draw(st.booleans()):
        bits &= raw.type(3)
    kind = draw(
        st.sampled_from([SparseLevels, SparseValues, DenseLevels, XorBits, DenseBits, Factors])
    )
    if kind is SparseLevels:
        kept = levels[positions].astype(np.int8)
        return SparseLevels(numel, positions, kept, scales), shape, "F32"
    if kind is SparseValues:
        return SparseValues(numel, positions, bits[positions], dtype), shape, "F32"
    if kind is DenseLevels:
        return DenseLevels(numel, levels.astype(np.int8), scales), shape, "F32"
    if kind is Factors:
        form = draw(st.sampled_from(FORMS))
        rank = draw(st.sampled_from([1, 4])) if form in FORMS[:2] else 0
        count = factors_count(form, rank, numel=numel, rows=rows)
        factors = rng.integers(0, 255, count * raw.itemsize, dtype=np.uint8).view(raw)
        scale = 0.5 if rank else 1.0
        return Factors(numel, rows, form, rank, factors, scale, dtype), shape, "F32"
    return kind(numel, bits, dtype), shape, dtype


@settings(max_examples=150, deadline=None)
@given(records())
def test_round_trip(case: tuple[Record, tuple[int, ...], str]) -> None:
    record, shape, dtype = case
    check_covers(record, shape)
    entry, payload = encode_record(record, dtype=dtype)
    assert {chunk.stream: chunk.nbytes for chunk in entry.chunks} == {
        stream: len(data) for stream, data in payload.items()
    }
    assert RecordEntry.from_json(entry.to_json(), "test") == entry
    rows = shape[0] if shape else 1
    entry.check(numel=record.numel, rows=rows, dtype=dtype)
    decoded = decode_record(entry, payload, numel=record.numel, rows=rows, dtype=dtype)
    assert plain(decoded) == plain(record)


@pytest.mark.parametrize("level", [-128, 127])
def test_extreme_levels(level: int) -> None:
    for record in (
        SparseLevels(2, np.array([1]), np.array([level], np.int8), np.ones(1, np.float32)),
        DenseLevels(1, np.array([level], np.int8), np.ones(1, np.float32)),
    ):
        entry, payload = encode_record(record, dtype="F32")
        decoded = decode_record(entry, payload, numel=record.numel, dtype="F32")
        assert plain(decoded) == plain(record)


def _index(rate: float, numel: int = 300_000) -> str:
    kept = np.random.default_rng(0).random(numel) < rate
    positions = np.flatnonzero(kept).astype(np.int64)
    values = np.zeros(positions.size, "<u2")
    return encode_record(SparseValues(numel, positions, values, "F16"), dtype="F32")[0].encoding


def test_smallest_index_is_chosen() -> None:
    assert _index(0.01) == "sparse_values/rice"
    assert _index(0.45) == "sparse_values/bitmap"
    assert _index(1.0) == "sparse_values/bitmap+zstd"


def test_compressible_bits_become_planes_and_others_stay_raw() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 1 << 32, 2_000_000, dtype=np.uint32)
    for bits, codec in ((noise, "raw"), (noise & 0xFF, "planes")):
        entry, _ = encode_record(XorBits(bits.size, bits, "F32"), dtype="F32")
        assert entry.chunks[0].codec == codec


one = np.ones(1, np.float32)
some = np.array([1, 4])


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (SparseLevels(4, some, np.ones(2, np.int8), one), "outside"),
        (SparseLevels(9, some[::-1].copy(), np.ones(2, np.int8), one), "increasing"),
        (SparseLevels(9, np.array([1, 1]), np.ones(2, np.int8), one), "increasing"),
        (SparseLevels(9, np.array([-1, 1]), np.ones(2, np.int8), one), "outside"),
        (SparseLevels(9, some.astype(np.int32), np.ones(2, np.int8), one), "positions"),
        (SparseLevels(9, some, np.array([1, 0], np.int8), one), "zero"),
        (SparseLevels(9, some, np.ones(3, np.int8), one), "levels"),
        (SparseLevels(9, some, np.ones(2, np.int16), one), "levels"),
        (SparseLevels(9, some, np.ones(2, np.int8), one * np.nan), "finite"),
        (SparseLevels(9, some, np.ones(2, np.int8), one.astype(np.float64)), "scales"),
        (SparseValues(9, some, np.ones(2, "<u4"), "BF16"), "values"),
        (DenseLevels(3, np.ones(2, np.int8), one), "levels"),
        (XorBits(3, np.ones((3, 1), "<u2"), "BF16"), "bits"),
        (DenseBits(-1, np.ones(0, "<u2"), "BF16"), "negative"),
    ],
)
def test_contradictions_are_refused(record: Record, problem: str) -> None:
    with pytest.raises(InvalidRecordError, match=problem):
        check_record(record)


def test_unknown_dtype_is_refused() -> None:
    with pytest.raises(UnknownEncodingError, match="F128"):
        check_record(DenseBits(0, np.ones(0, "<u2"), "F128"))


@pytest.mark.parametrize(
    ("record", "shape"),
    [
        (DenseLevels(6, np.ones(6, np.int8), one), (5,)),
        (DenseLevels(6, np.ones(6, np.int8), np.ones(2, np.float32)), (3, 2)),
        (DenseLevels(6, np.ones(6, np.int8), one), None),
    ],
)
def test_records_must_cover_their_shape(record: Record, shape: Any) -> None:
    with pytest.raises(InvalidRecordError):
        check_covers(record, shape)


def test_decoded_arrays_are_read_only() -> None:
    record = SparseLevels(9, some, np.ones(2, np.int8), one)
    entry, payload = encode_record(record, dtype="F32")
    decoded = decode_record(entry, payload, numel=9, dtype="F32")
    assert isinstance(decoded, SparseLevels)
    for array in (decoded.positions, decoded.levels, decoded.scales):
        assert not array.flags.writeable
