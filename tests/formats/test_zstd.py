from __future__ import annotations

import numpy as np
import pytest
import zstandard

from formats.codecs import zstd
from formats.errors import CompressedFrameError


@pytest.mark.parametrize("data", [b"a", b"abc" * 1000, bytes(70_000)])
def test_round_trip(data: bytes) -> None:
    assert zstd.decompress(zstd.compress(data), len(data)) == data


def test_round_trip_against_a_dictionary_larger_than_the_data() -> None:
    dictionary = bytes(range(256)) * 500
    data = dictionary[77:40_000] + b"!"
    frame = zstd.compress(data, dictionary=dictionary)
    assert len(frame) < 64
    assert zstd.decompress(frame, len(data), dictionary=dictionary) == data


def test_wrong_expected_size_is_refused() -> None:
    with pytest.raises(CompressedFrameError, match="wrong content size"):
        zstd.decompress(zstd.compress(b"abcdef" * 9), 53)


def test_frame_that_declares_terabytes_is_refused_without_allocating() -> None:
    header = zstandard.FRAME_HEADER + bytes([0b1110_0000]) + (1 << 40).to_bytes(8, "little")
    bomb = header + b"\x01\x00\x00"
    assert zstandard.get_frame_parameters(bomb).content_size == 1 << 40
    with pytest.raises(CompressedFrameError, match="impossible"):
        zstd.decompress(bomb, 1 << 40)


def test_frame_without_a_declared_size_is_refused() -> None:
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(b"abc" * 100)
    with pytest.raises(CompressedFrameError, match="impossible"):
        zstd.decompress(frame, 300)


def test_trailing_bytes_and_second_frames_are_refused() -> None:
    frame = zstd.compress(b"abc" * 100)
    for tail in (b"\0", frame):
        with pytest.raises(CompressedFrameError, match="corrupt"):
            zstd.decompress(frame + tail, 300)


def test_garbage_and_truncation_are_refused() -> None:
    frame = zstd.compress(bytes(range(256)))
    for bad in (b"", b"garbage!", frame[:10], frame[:-1]):
        with pytest.raises(CompressedFrameError):
            zstd.decompress(bad, 256)


def test_symbols_take_little_more_than_their_entropy() -> None:
    symbols = np.random.default_rng(0).choice(16, 100_000, p=np.arange(16) / 120).astype(np.uint8)
    frame = zstd.compress_symbols(symbols.tobytes())
    shares = np.arange(1, 16) / 120
    entropy_nbytes = 100_000 / 8 * float((shares * -np.log2(shares)).sum())
    assert entropy_nbytes < 1.01 * len(frame) < 1.02 * 1.01 * entropy_nbytes
    assert zstd.decompress(frame, 100_000) == symbols.tobytes()
