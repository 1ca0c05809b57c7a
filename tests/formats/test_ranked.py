from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import dither
from formats.codecs import ranked, rice
from formats.codecs import segments as plan
from formats.decode import decode_record
from formats.encode import encode_record
from formats.errors import CorruptStreamError, InvalidStateError
from formats.records import SparseLevels, SparseValues
from tests.formats.stores import dithered

NUMELS = [0, 1, 2, 384, 65_535, 65_536, 65_537, 200_000]
RATES = [0.0, 0.0003, 0.006, 0.05, 0.6]
SEED = dither.tensor_seed("0:role", "encoder.weight")


def by_dither(numel: int, rate: float, seed: int = SEED) -> np.ndarray:
    return dithered(numel, seed, step=1 / rate) if rate else np.empty(0, np.int64)


def against_dither(numel: int, rate: float, seed: int = SEED) -> np.ndarray:
    """Those of the largest numbers, which dither drops first."""
    kept = dither.uniform(seed, 0, numel) > 1 - rate
    return np.flatnonzero(kept).astype(np.int64)


def without_dither(numel: int, rate: float, seed: int = SEED) -> np.ndarray:
    kept = np.random.default_rng(seed).random(numel) < rate
    return np.flatnonzero(kept).astype(np.int64)


def entropy_nbytes(positions: np.ndarray, numel: int, seed: int) -> float:
    """Of the mask given the numbers: that of every rank bucket at its own frequency."""
    ranks = np.concatenate(
        [
            dither.ranks(seed, block, n=min(65_536, numel - block * 65_536))
            for block in range(-(-numel // 65_536))
        ]
    )
    total = np.histogram(ranks, plan.EDGES)[0]
    kept = np.histogram(ranks[positions], plan.EDGES)[0]
    bits = 0.0
    for n, k in zip(total.tolist(), kept.tolist(), strict=True):
        if 0 < k < n:
            bits += k * np.log2(n / k) + (n - k) * np.log2(n / (n - k))
    return bits / 8


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(NUMELS),
    st.sampled_from(RATES),
    st.sampled_from([by_dither, against_dither, without_dither]),
    st.integers(0, 2**64 - 1),
)
def test_round_trips(numel: int, rate: float, select, seed: int) -> None:
    positions = select(numel, rate, seed)
    coded = ranked.encode(positions, numel, seed)
    decoded = ranked.decode(*coded, numel, positions.size, seed)
    assert decoded.dtype == np.int64
    assert np.array_equal(decoded, positions)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 140_000), max_size=40), st.integers(0, 2**64 - 1))
def test_round_trips_any_set(kept: set[int], seed: int) -> None:
    positions = np.array(sorted(kept), np.int64)
    coded = ranked.encode(positions, 140_001, seed)
    assert np.array_equal(ranked.decode(*coded, 140_001, positions.size, seed), positions)


@pytest.mark.parametrize("numel", NUMELS)
def test_all_kept(numel: int) -> None:
    positions = np.arange(numel, dtype=np.int64)
    headers, payload = ranked.encode(positions, numel, SEED)
    assert np.array_equal(ranked.decode(headers, payload, numel, numel, SEED), positions)
    assert len(payload) <= numel // 128 // 8 + 3 * len(headers)


def test_nothing_kept_takes_no_bytes() -> None:
    assert ranked.encode(np.empty(0, np.int64), 1 << 20, SEED) == (b"", b"")


@pytest.mark.parametrize("rate", [0.0005, 0.002, 0.0064, 0.02, 0.1])
def test_is_within_four_percent_of_the_conditional_entropy(rate: float) -> None:
    numel = 1 << 20
    positions = by_dither(numel, rate)
    headers, payload = ranked.encode(positions, numel, SEED)
    assert len(headers) + len(payload) < 1.04 * entropy_nbytes(positions, numel, SEED) + 8


def test_takes_half_of_the_gaps() -> None:
    positions = by_dither(1 << 20, 0.0064)
    coded = ranked.encode(positions, 1 << 20, SEED)
    gaps = rice.encode(positions, 1 << 20)
    assert gaps is not None
    assert sum(map(len, coded)) < 0.5 * sum(map(len, gaps))


@pytest.mark.parametrize(("numel", "at_most"), [(384, 12), (1536, 20)])
def test_a_small_tensor_pays_little_for_headers(numel: int, at_most: int) -> None:
    positions = by_dither(numel, 0.0064)
    assert positions.size > 0
    assert sum(map(len, ranked.encode(positions, numel, SEED))) <= at_most


def _sparse(positions: np.ndarray, numel: int, seed: int | None) -> SparseLevels:
    levels = np.ones(positions.size, np.int8)
    return SparseLevels(numel, positions, levels, np.ones(1, np.float32), seed)


@pytest.mark.parametrize("select", [by_dither, against_dither, without_dither])
@pytest.mark.parametrize("rate", [0.0003, 0.01, 0.05])
def test_the_smallest_index_is_taken(select, rate: float) -> None:
    record = _sparse(select(200_000, rate), 200_000, SEED)
    entry, payload = encode_record(record, dtype="F32")
    decoded = decode_record(entry, payload, numel=200_000, dtype="F32", seed=SEED)
    assert isinstance(decoded, SparseLevels)
    assert np.array_equal(decoded.positions, record.positions)
    assert decoded.seed == (SEED if entry.is_ranked else None)
    gaps = rice.encode(record.positions, 200_000)
    assert gaps is not None
    sizes = {
        "sparse_levels/rice": sum(map(len, gaps)),
        "sparse_levels/ranked": sum(map(len, ranked.encode(record.positions, 200_000, SEED))),
    }
    assert entry.encoding == min(sizes, key=lambda name: sizes[name])
    if select is by_dither:
        assert entry.encoding == "sparse_levels/ranked"
        assert encode_record(replace(record, seed=None), dtype="F32")[0].encoding.endswith("rice")
    else:
        assert sizes["sparse_levels/ranked"] < 1.05 * sizes["sparse_levels/rice"]


def test_a_dense_selection_is_a_bitmap() -> None:
    record = _sparse(np.arange(0, 70_000, 2), 70_000, SEED)
    assert encode_record(record, dtype="F32")[0].encoding == "sparse_levels/bitmap+zstd"


def test_values_are_ranked_too() -> None:
    positions = by_dither(100_000, 0.01)
    values = np.arange(positions.size).astype("<u2")
    entry, payload = encode_record(
        SparseValues(100_000, positions, values, "BF16", SEED), dtype="F32"
    )
    assert entry.encoding == "sparse_values/ranked"
    decoded = decode_record(entry, payload, numel=100_000, dtype="F32", seed=SEED)
    assert isinstance(decoded, SparseValues)
    assert np.array_equal(decoded.positions, positions)
    assert np.array_equal(decoded.values, values)
    assert decoded.seed == SEED
    with pytest.raises(InvalidStateError, match="seed"):
        decode_record(entry, payload, numel=100_000, dtype="F32")


def _coded(numel: int = 100_000) -> tuple[bytes, bytes, int]:
    positions = by_dither(numel, 0.01)
    return *ranked.encode(positions, numel, SEED), positions.size


def refused(headers: bytes, payload: bytes, numel: int, n_kept: int, match: str) -> None:
    with pytest.raises(CorruptStreamError, match=match):
        ranked.decode(headers, payload, numel, n_kept, SEED)


def test_contradictions_are_refused() -> None:
    headers, payload, n_kept = _coded()
    refused(headers, payload, 100_000, n_kept + 1, "contradict the count")
    refused(headers, payload, 100_000, n_kept - 1, "contradict the count")
    refused(headers, payload[:-20], 100_000, n_kept, "ranked")
    refused(headers, payload + b"\0", 100_000, n_kept, "ranked")
    refused(headers, bytes(1), 100_000, n_kept, "ends within a segment")
    refused(headers[:-1], payload, 100_000, n_kept, "contradict the count")
    refused(headers + b"\xe0\xe0\xe0", payload, 100_000, n_kept, "beyond the last rank")
    refused(b"", b"", 100_000, 1, "too short for its count")
    refused(b"", b"\0", 100_000, 1, "contradict the count")


def test_both_ends_of_the_payload_meet() -> None:
    """One element, in the first bucket and dropped: a single code, of place 1."""
    seed = next(s for s in range(1 << 16) if dither.ranks(s, 0, n=1)[0] < 16)
    for k, payload in ((0, b"\x02"), (1, b"\x81"), (7, b"\x03")):
        assert ranked.decode(bytes([k]), payload, 1, 0, seed).size == 0
    for k, payload in ((0, b"\x82"), (0, b"\x02\x00"), (1, b"\x83"), (8, b"\x01")):
        with pytest.raises(CorruptStreamError, match="not filled"):
            ranked.decode(bytes([k]), payload, 1, 0, seed)
    with pytest.raises(CorruptStreamError, match="not filled"):
        ranked.decode(b"", b"\x00", 1, 0, seed)


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_flipped_bits_never_yield_invalid_positions(at: int, bit: int) -> None:
    headers, payload, n_kept = _coded()
    damaged = bytearray(headers + payload)
    damaged[at % len(damaged)] ^= 1 << bit
    headers, payload = bytes(damaged[: len(headers)]), bytes(damaged[len(headers) :])
    try:
        positions = ranked.decode(headers, payload, 100_000, n_kept, SEED)
    except CorruptStreamError:
        return
    assert positions.size == n_kept
    assert (np.diff(positions) > 0).all()
    assert positions[0] >= 0
    assert positions[-1] < 100_000


@pytest.mark.parametrize("header", range(256))
def test_a_few_bytes_cost_little_whatever_they_say(header: int) -> None:
    numel = 1 << 36
    tracemalloc.start()
    start = time.perf_counter()
    for payload in (b"", b"\xff" * 64, b"\x01" * 64, bytes(63) + b"\x80", bytes(64)):
        with pytest.raises(CorruptStreamError):
            ranked.decode(bytes([header]), payload, numel, 1 << 35, SEED)
    seconds = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert seconds < 1


def test_work_does_not_grow_with_the_tensor() -> None:
    """Nor does it where blocks are many and entries few."""
    numel = 1 << 36
    positions = np.sort(np.random.default_rng(1).integers(0, numel, 1000)).astype(np.int64)
    tracemalloc.start()
    coded = ranked.encode(positions, numel, SEED)
    decoded = ranked.decode(*coded, numel, positions.size, SEED)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(decoded, positions)
    assert peak < 8 << 20
