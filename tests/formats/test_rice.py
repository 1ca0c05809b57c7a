from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.codecs import rice
from formats.errors import CorruptStreamError


def positions_of(numel: int, rate: float, seed: int) -> np.ndarray:
    kept = np.random.default_rng(seed).random(numel) < rate
    return np.flatnonzero(kept).astype(np.int64)


def reference_encode(positions: np.ndarray, numel: int) -> tuple[bytes, bytes]:
    """The definition, one bit at a time."""
    headers, payloads = b"", b""
    for block in range(-(-numel // 65536)):
        offsets = [int(p) - block * 65536 for p in positions if p // 65536 == block]
        codes = [b - a - 1 for a, b in zip([-1, *offsets], offsets, strict=False)]
        sizes = [sum((c >> k) + 1 + k for c in codes) for k in range(16)]
        k = sizes.index(min(sizes))
        bits = [c >> bit & 1 for c in codes for bit in range(k)]
        for code in codes:
            bits += [0] * (code >> k) + [1]
        bits += [0] * (-len(bits) % 8)
        payload = bytes(
            sum(bit << i for i, bit in enumerate(bits[at : at + 8]))
            for at in range(0, len(bits), 8)
        )
        headers += len(codes).to_bytes(2, "little") + bytes([k])
        headers += len(payload).to_bytes(2, "little")
        payloads += payload
    return headers, payloads


@settings(max_examples=25, deadline=None)
@given(
    numel=st.sampled_from([0, 1, 9, 65_535, 65_536, 65_537, 150_001]),
    rate=st.sampled_from([0.0, 0.0002, 0.003, 0.02, 0.3]),
    seed=st.integers(0, 9),
)
def test_equals_the_reference_and_round_trips(numel: int, rate: float, seed: int) -> None:
    positions = positions_of(numel, rate, seed)
    coded = rice.encode(positions, numel)
    assert coded == reference_encode(positions, numel)
    assert np.array_equal(rice.decode(*coded, numel, positions.size), positions)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 200_000), max_size=40))
def test_round_trips_any_set(kept: set[int]) -> None:
    positions = np.array(sorted(kept), np.int64)
    coded = rice.encode(positions, 200_001)
    assert coded is not None
    assert np.array_equal(rice.decode(*coded, 200_001, positions.size), positions)


def test_many_batches() -> None:
    numel = rice.BLOCK * 2100 + 17
    positions = positions_of(numel, 0.0002, 3)
    coded = rice.encode(positions, numel)
    assert coded is not None
    assert np.array_equal(rice.decode(*coded, numel, positions.size), positions)


def test_full_block_does_not_fit() -> None:
    assert rice.encode(np.arange(65_536), 65_536) is None
    assert rice.encode(np.arange(65_535), 65_536) is not None


@pytest.mark.parametrize("rate", [0.001, 0.005, 0.01, 0.02, 0.05])
def test_is_within_two_percent_of_the_entropy(rate: float) -> None:
    numel = 4 << 20
    headers, payloads = rice.encode(positions_of(numel, rate, 1), numel) or (b"", b"")
    entropy = -(rate * np.log2(rate) + (1 - rate) * np.log2(1 - rate)) * numel / 8
    assert len(payloads) < 1.02 * entropy + len(headers)


def _coded() -> tuple[np.ndarray, bytes, int]:
    positions = positions_of(100_000, 0.01, 5)
    headers, payloads = rice.encode(positions, 100_000) or (b"", b"")
    return np.frombuffer(headers, rice.HEADER).copy(), payloads, positions.size


@pytest.mark.parametrize(
    ("field", "value"), [("count", 7), ("k", 16), ("k", 15), ("payload", 9), ("payload", 65_535)]
)
def test_contradicting_headers_are_refused(field: str, value: int) -> None:
    headers, payloads, n_kept = _coded()
    headers[field][0] = value
    with pytest.raises(CorruptStreamError):
        rice.decode(headers.tobytes(), payloads, 100_000, n_kept)


def test_offset_beyond_block_or_tensor_is_refused() -> None:
    headers, payloads, n_kept = _coded()
    with pytest.raises(CorruptStreamError, match="beyond the tensor"):
        rice.decode(headers.tobytes(), payloads, 70_000, n_kept)
    far = np.zeros(1, rice.HEADER)
    far["count"], far["k"], far["payload"] = 1, 15, 3
    with pytest.raises(CorruptStreamError, match="beyond its block"):
        rice.decode(far.tobytes(), bytes([0, 0, 0x08]), 65_536, 1)


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_flipped_payload_bits_never_yield_invalid_positions(at: int, bit: int) -> None:
    headers, payloads, n_kept = _coded()
    damaged = bytearray(payloads)
    damaged[at % len(damaged)] ^= 1 << bit
    try:
        positions = rice.decode(headers.tobytes(), bytes(damaged), 100_000, n_kept)
    except CorruptStreamError:
        return
    assert positions.size == n_kept
    assert (np.diff(positions) > 0).all()
    assert positions[0] >= 0
    assert positions[-1] < 100_000
