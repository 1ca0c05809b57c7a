"""Where the bytes of a store come from: a file, memory, or ranges fetched from elsewhere.

A reader of a far store pays per request, so what is likely to be needed next comes along with what
is needed now: behind the root slots the base record, in front of the root index the same.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from formats.errors import TruncatedError

if TYPE_CHECKING:
    import mmap

HEAD_NBYTES = 128 << 10
"""What is fetched with the superblock; the base record of some thousand tensors lies within."""


class ByteSource(Protocol):
    """Random access to the bytes of a store; ``fsspec`` files need an adapter of three lines."""

    @property
    def nbytes(self) -> int:
        """Length of the whole."""

    def read_range(self, offset: int, length: int) -> bytes:
        """The bytes of ``offset : offset + length``, fewer only at the end."""


class SectionView(Protocol):
    """Committed bytes, as a container wants them."""

    def view(self, offset: int, length: int) -> memoryview:
        """Exactly the bytes of ``offset : offset + length``.

        Raises:
            TruncatedError: They are not all there.
        """


class FileSource:
    """An open file; the descriptor stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def nbytes(self) -> int:
        """Length of the file now."""
        return os.fstat(self._fd).st_size

    def read_range(self, offset: int, length: int) -> bytes:
        """Positional read; another process may be writing."""
        return os.pread(self._fd, length, offset)


class BytesSource:
    """A store in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def nbytes(self) -> int:
        """Length of the data."""
        return len(self._data)

    def read_range(self, offset: int, length: int) -> bytes:
        """A copy of the range."""
        return self._data[offset : offset + length]


class MappedBytes:
    """A mapping of the committed length; views keep it alive."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = memoryview(data)

    def view(self, offset: int, length: int) -> memoryview:
        """A view without a copy."""
        return self._data[offset : offset + length]


class FetchedBytes:
    """Ranges of a source, of which the first and what :meth:`hold` names stay in memory."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._head = b""
        self._held = (0, b"")

    @property
    def nbytes(self) -> int:
        """Length of the source."""
        return self._source.nbytes

    def read_range(self, offset: int, length: int) -> bytes:
        """Fetches anew; a range at 0 brings along what may be asked for next."""
        if offset:
            return self._source.read_range(offset, length)
        self._head = self._source.read_range(0, max(length, HEAD_NBYTES))
        return self._head[:length]

    def hold(self, offset: int, length: int) -> None:
        """Fetches a range for the views to come."""
        if offset + length > len(self._head):
            self._held = (offset, self._source.read_range(offset, length))

    def view(self, offset: int, length: int) -> memoryview:
        """From memory if it is there, else fetched.

        Raises:
            TruncatedError: The source ends within the range.
        """
        for first, data in ((0, self._head), self._held):
            if first <= offset and offset + length <= first + len(data):
                return memoryview(data)[offset - first : offset - first + length]
        fetched = self._source.read_range(offset, length)
        if len(fetched) != length:
            raise TruncatedError(
                "source ends within a section",
                where=f"offset {offset}",
                expected=f"{length} bytes",
                actual=f"{len(fetched)} bytes",
            )
        return memoryview(fetched)
