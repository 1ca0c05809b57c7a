"""The one way in and out of zstandard.

The library's defaults trust the frame: a few bytes can declare terabytes and be allocated for. Here
the declared size must equal what the index promises, and be possible at all, before any allocation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import zstandard

from formats.errors import CompressedFrameError

if TYPE_CHECKING:
    from formats.buffers import Buffer

LEVEL = 19
MAX_WINDOW_LOG = 27
# No block of a zstd frame is shorter than 4 bytes or longer than 128 KiB when decoded.
MAX_RATIO = 1 << 15
_PARALLEL_NBYTES = 1 << 25


def compress(data: Buffer, *, level: int = LEVEL, dictionary: bytes | None = None) -> bytes:
    """One frame that declares its content size and carries no checksum of its own.

    Args:
        data: What to compress; not empty.
        level: zstd level.
        dictionary: Raw content to compress against; the whole of it stays within the window.
    """
    nbytes = len(data)
    threads = -1 if nbytes >= _PARALLEL_NBYTES else 0
    if dictionary is None:
        return zstandard.ZstdCompressor(level=level, threads=threads).compress(data)
    window_log = (nbytes + len(dictionary)).bit_length()
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=nbytes,
        dict_size=len(dictionary),
        window_log=min(max(window_log, zstandard.WINDOWLOG_MIN), MAX_WINDOW_LOG),
        write_dict_id=False,
    )
    compressor = zstandard.ZstdCompressor(
        dict_data=_raw_dictionary(dictionary), compression_params=parameters
    )
    return compressor.compress(data)


def compress_symbols(data: Buffer) -> bytes:
    """One frame of bytes that are as good as independent: Huffman codes and hardly a match.

    On packed levels matches cost more than they gain. Without them the coder takes a gigabyte a
    second, a hundred times what the levels of many matches take.
    """
    parameters = zstandard.ZstdCompressionParameters.from_level(
        1, source_size=len(data), min_match=7, hash_log=6
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def declared_nbytes(frame: Buffer) -> int:
    """Content size that a frame declares, refused when no frame of its length can hold it.

    Raises:
        CompressedFrameError: No frame, no declared size, or an impossible one.
    """
    try:
        declared = zstandard.get_frame_parameters(frame).content_size
    except zstandard.ZstdError as error:
        raise CompressedFrameError("not a zstd frame", hint=str(error)) from error
    limit = len(frame) * MAX_RATIO
    if not 0 < declared <= limit:
        raise CompressedFrameError(
            "impossible content size in a zstd frame",
            expected=f"1 to {limit} bytes",
            actual=f"{declared} bytes",
        )
    return declared


def decompress(frame: Buffer, expected_nbytes: int, *, dictionary: bytes | None = None) -> bytes:
    """Content of a single frame, whose size the caller must know.

    Raises:
        CompressedFrameError: The frame is malformed, of another size, or not alone.
    """
    declared = declared_nbytes(frame)
    if declared != expected_nbytes:
        raise CompressedFrameError(
            "wrong content size in a zstd frame",
            expected=f"{expected_nbytes} bytes",
            actual=f"{declared} bytes",
        )
    try:
        decompressor = zstandard.ZstdDecompressor(
            dict_data=None if dictionary is None else _raw_dictionary(dictionary),
            max_window_size=1 << MAX_WINDOW_LOG,
        )
        content = decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CompressedFrameError("corrupt zstd frame", hint=str(error)) from error
    if len(content) != expected_nbytes:
        raise CompressedFrameError(
            "zstd frame decodes to another size than it declares",
            expected=f"{expected_nbytes} bytes",
            actual=f"{len(content)} bytes",
        )
    return content


def _raw_dictionary(data: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
