"""The compiled loops do what the numpy code does, on sound bytes and on damaged ones."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import dither
from formats.codecs import bitmap, compiled, ranked, rice, segments
from formats.errors import CorruptStreamError
from tests.formats.test_ranked import against_dither, by_dither, without_dither
from tests.formats.test_rice import positions_of

if TYPE_CHECKING:
    from collections.abc import Callable

if find_spec("numba") is None:
    pytest.skip("needs the fast extra", allow_module_level=True)

NUMELS = [1, 63, 64, 65, 65_535, 65_536, 65_537, 150_001, 400_000]
RATES = [0.0, 0.0002, 0.003, 0.02, 0.3, 0.9]


def both(decode: Callable[[], np.ndarray]) -> list[np.ndarray | str]:
    """What numpy and the compiled loops make of something: positions or a refusal."""
    outcomes: list[np.ndarray | str] = []
    for least in (1 << 62, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compiled, "MIN_ENTRIES", least)
            try:
                outcomes.append(decode())
            except CorruptStreamError as error:
                outcomes.append(error.id)
    return outcomes


def assert_same(outcomes: list[np.ndarray | str]) -> None:
    reference, fast = outcomes
    assert type(reference) is type(fast)
    if isinstance(reference, str):
        assert reference == fast
    else:
        assert isinstance(fast, np.ndarray)
        assert reference.dtype == fast.dtype == np.int64
        assert np.array_equal(reference, fast)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NUMELS), st.sampled_from(RATES), st.integers(0, 99))
def test_equal_on_sound_blocks(numel: int, rate: float, seed: int) -> None:
    positions = positions_of(numel, rate, seed)
    coded = rice.encode(positions, numel)
    if coded is not None:
        outcomes = both(lambda: rice.decode(*coded, numel, positions.size))
        assert_same(outcomes)
        assert np.array_equal(outcomes[1], positions)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NUMELS), st.sampled_from(RATES), st.integers(0, 99))
def test_equal_on_bitmaps(numel: int, rate: float, seed: int) -> None:
    positions = positions_of(numel, rate, seed)
    data = bytearray(bitmap.encode(positions, numel))
    assert_same(both(lambda: bitmap.decode(data, numel, positions.size)))
    data[seed % len(data)] ^= 1 << seed % 8
    for n_kept in (positions.size, positions.size + 1, max(positions.size - 1, 0)):
        assert_same(both(lambda n_kept=n_kept: bitmap.decode(data, numel, n_kept)))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([1000, 65_537, 150_001]),
    st.sampled_from([0.0005, 0.01, 0.2]),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=2),
)
def test_equal_on_damaged_blocks(
    numel: int, rate: float, payload: list[tuple[int, int]], header: list[tuple[int, int]]
) -> None:
    positions = positions_of(numel, rate, 1)
    headers, payloads = (bytearray(part) for part in rice.encode(positions, numel) or (b"", b""))
    for part, changes in ((headers, header), (payloads, payload)):
        for at, value in changes:
            if part:
                part[at % len(part)] = value
    assert_same(both(lambda: rice.decode(headers, payloads, numel, positions.size)))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(NUMELS),
    st.sampled_from(RATES),
    st.sampled_from([by_dither, against_dither, without_dither]),
    st.integers(0, 2**64 - 1),
)
def test_equal_on_sound_ranks(numel: int, rate: float, select: Any, seed: int) -> None:
    positions = select(numel, rate, seed)
    coded = ranked.encode(positions, numel, seed)
    outcomes = both(lambda: ranked.decode(*coded, numel, positions.size, seed))
    assert_same(outcomes)
    assert np.array_equal(outcomes[1], positions)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([1000, 65_537, 150_001]),
    st.sampled_from([0.0005, 0.01, 0.2]),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=2),
    st.integers(-1, 1),
)
def test_equal_on_damaged_ranks(
    numel: int,
    rate: float,
    payload: list[tuple[int, int]],
    header: list[tuple[int, int]],
    miscount: int,
) -> None:
    positions = by_dither(numel, rate, 1)
    headers, payloads = (bytearray(part) for part in ranked.encode(positions, numel, 1))
    for part, changes in ((headers, header), (payloads, payload)):
        for at, value in changes:
            if part:
                part[at % len(part)] = value
    n_kept = max(positions.size + miscount, 0)
    assert_same(both(lambda: ranked.decode(bytes(headers), bytes(payloads), numel, n_kept, 1)))


@pytest.mark.parametrize("payload", [b"", b"\0", b"\1", b"\x81", b"\xff" * 8, b"\1" + b"\0" * 8])
def test_equal_on_every_header(payload: bytes) -> None:
    for header in range(256):
        for n_kept in (0, 1, 40, 128):
            assert_same(both(partial(ranked.decode, bytes([header]), payload, 128, n_kept, 3)))


@pytest.mark.parametrize("payload", [b"\0" * 8, b"\xff" * 8, b"\0" * 7 + b"\x80"])
def test_equal_at_the_last_bits(payload: bytes) -> None:
    for k in range(16):
        header = np.zeros(1, rice.HEADER)
        header["k"], header["payload"] = k, len(payload)
        for count in range(65):
            header["count"] = count
            headers = header.tobytes()
            assert_same(both(partial(rice.decode, headers, payload, 65_536, count)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4000), st.sampled_from([0, 65_536]), st.integers(0, 25), st.booleans())
def test_equal_however_short_the_last_block(
    n_short: int, n_before: int, n_buckets: int, at_the_end: bool
) -> None:
    """Its ranks are found from its offsets or from the ranks in use, whichever are fewer."""
    numel = n_before + (65_536 - n_short if at_the_end else n_short)
    below = int(segments.EDGES[n_buckets])
    ranks = dither.ranks_of(7, np.arange(numel, dtype=np.int64))
    positions = np.flatnonzero(ranks < below)[::3].astype(np.int64)
    coded = ranked.encode(positions, numel, 7)
    outcomes = both(lambda: ranked.decode(*coded, numel, positions.size, 7))
    assert_same(outcomes)
    assert np.array_equal(outcomes[1], positions)


def test_is_used_once_many_entries_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def recorded(*arguments: Any) -> int:
        calls.append(arguments)
        return decode_blocks(*arguments)

    def read(numel: int) -> None:
        positions = np.arange(0, numel, 5, dtype=np.int64)
        coded = rice.encode(positions, numel)
        assert coded is not None
        assert np.array_equal(rice.decode(*coded, numel, positions.size), positions)

    decode_blocks = compiled.decode_blocks
    monkeypatch.setattr(compiled, "decode_blocks", recorded)
    monkeypatch.setattr(compiled, "_n_asked", 0)
    monkeypatch.setattr(compiled, "MIN_ENTRIES", 4 * (compiled.ENTRIES_A_CALL + 200))
    for n_reads in range(1, 7):
        read(1000)
        assert len(calls) == max(n_reads - 3, 0)
    monkeypatch.setattr(compiled, "_n_asked", 0)
    read(1000)
    assert len(calls) == 3
    read(1 << 16)
    assert len(calls) == 4


def test_is_used_at_once_when_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_n_asked", 0)
    assert not compiled.is_worth_it(1)
    assert compiled.warm_up()
    assert compiled.is_worth_it(1)


@pytest.mark.parametrize("error", [RuntimeError("no locator available"), OSError(28, "full")])
def test_compiles_where_nothing_can_be_kept(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from formats.codecs import loops

    def without_a_disk(*arguments: Any, cache: bool = False, **options: Any) -> Any:
        if cache:
            raise error
        return njit(*arguments, **options)

    njit = loops.numba.njit
    monkeypatch.setattr(loops.numba, "njit", without_a_disk)
    double = loops.compiled_for("int64(int64)")(lambda x: 2 * x)
    assert double(21) == 42
    assert double.signatures


def test_without_numba_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "is_available", lambda: False)
    monkeypatch.setattr(compiled, "decode_blocks", None)
    assert not compiled.warm_up()
    positions = positions_of(1 << 19, 0.2, 0)
    coded = rice.encode(positions, 1 << 19)
    assert coded is not None
    assert np.array_equal(rice.decode(*coded, 1 << 19, positions.size), positions)
