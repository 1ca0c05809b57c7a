"""Reading one task: records decoded from mapped sections, each verified before its first use."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from formats.codecs import zstd
from formats.decode import decode_record
from formats.errors import InvalidStateError, SizeMismatchError, located
from formats.sections import SectionRef

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from formats.directory import TaskDirectory, TensorEntry
    from formats.encoding import Chunk, RecordEntry
    from formats.index import BaseTensor
    from formats.records import Record


class TaskReader:
    """Decodes the records of one task, in any order.

    Raw chunks are handed out as read-only views of the mapped file; they stay valid after the
    container is closed. Safe for concurrent use.

    Args:
        directory: Parsed and checked.
        base: Tensors of the base.
        extent: The task's bytes in the file.
        path: For error messages.

    Raises:
        SizeMismatchError: Chunks do not cover their streams exactly.
    """

    def __init__(
        self,
        directory: TaskDirectory,
        *,
        base: Sequence[BaseTensor],
        extent: memoryview,
        path: str,
    ) -> None:
        self.directory = directory
        self._base = base
        self._extent = extent
        self._path = path
        self._sections: dict[SectionRef, memoryview] = {}
        self._locks = {ref: threading.Lock() for _, ref in directory.sections()}
        with located(path=path, where=f"task {directory.name!r}"):
            self._places = _place_chunks(directory)

    def __iter__(self) -> Iterator[TensorEntry]:
        """Entries in directory order."""
        return iter(self.directory.tensors)

    def __len__(self) -> int:
        return len(self.directory.tensors)

    def record(self, entry: TensorEntry) -> Record | None:
        """The record over the whole tensor, or over the base's rows where it grew.

        Raises:
            ChecksumMismatchError: A section is damaged.
            FormatError: A stream is malformed.
        """
        return self._decode(entry, "record")

    def extra(self, entry: TensorEntry) -> Record | None:
        """The record over the appended rows; raises like :meth:`record`."""
        return self._decode(entry, "extra")

    def sections_of(self, entry: TensorEntry) -> frozenset[SectionRef]:
        """The sections that the entry's records lie in."""
        parts = (self._places.get((entry.name, part), ()) for part in ("record", "extra"))
        return frozenset(ref for places in parts for ref, _ in places if ref is not None)

    def section(self, stream: str, ref: SectionRef) -> memoryview:
        """Decoded bytes of a section, verified.

        Raises:
            ChecksumMismatchError: It is damaged.
            CompressedFrameError: Its frame is malformed.
        """
        content = self._sections.get(ref)
        if content is None:
            with self._locks[ref]:  # of threads that want it at once, one verifies it
                content = self._sections.get(ref)
                if content is None:
                    content = self._sections[ref] = self._verified(stream, ref)
        return content

    def _verified(self, stream: str, ref: SectionRef) -> memoryview:
        content = self._extent[ref.offset : ref.end]
        ref.verify(content, stream)
        if ref.raw_nbytes is None:
            return content
        return memoryview(zstd.decompress(content, ref.raw_nbytes))

    def _decode(self, entry: TensorEntry, part: str) -> Record | None:
        place = self._places.get((entry.name, part))
        stored: RecordEntry | None = getattr(entry, part)
        if stored is None:
            return None
        if place is None:
            raise InvalidStateError("entry of another task", where=f"tensor {entry.name!r}")
        common, appended = entry.shapes(self._base)
        shape = appended if part == "extra" and appended is not None else common
        with located(path=self._path, where=f"task {self.directory.name!r}, tensor {entry.name!r}"):
            payload = {
                chunk.stream: self.section(chunk.stream, ref)[start : start + chunk.nbytes]
                if ref is not None
                else memoryview(b"")
                for chunk, (ref, start) in zip(stored.chunks, place, strict=True)
            }
            return decode_record(
                stored,
                payload,
                numel=math.prod(shape),
                dtype=entry.dtype,
                seed=self.directory.seed(entry, self._base),
            )


Place = tuple[SectionRef | None, int]


class _Cursor:
    """Hands out consecutive ranges of one stream's sections."""

    def __init__(self, stream: str, refs: Sequence[SectionRef]) -> None:
        self._stream = stream
        self._refs = iter(refs)
        self._ref: SectionRef | None = None
        self._used = 0

    def take(self, nbytes: int) -> Place:
        if not nbytes:
            return None, 0
        if self._ref is None or self._used == self._ref.content_nbytes:
            self._ref, self._used = next(self._refs, None), 0
        if self._ref is None or self._used + nbytes > self._ref.content_nbytes:
            raise SizeMismatchError(
                "chunks exceed the sections of their stream", where=self._stream
            )
        start = self._used
        self._used += nbytes
        return self._ref, start

    def finish(self) -> None:
        rest = 0 if self._ref is None else self._ref.content_nbytes - self._used
        if rest or next(self._refs, None) is not None:
            raise SizeMismatchError("bytes that no chunk covers", where=self._stream)


def _place_chunks(directory: TaskDirectory) -> Mapping[tuple[str, str], tuple[Place, ...]]:
    """Section and offset of every chunk; chunks fill the sections of their stream in order."""
    cursors = {stream: _Cursor(stream, refs) for stream, refs in directory.streams.items()}
    nothing = _Cursor("", ())

    def place(chunk: Chunk) -> Place:
        return cursors.get(chunk.stream, nothing).take(chunk.nbytes)

    places = {}
    for entry in directory.tensors:
        for part, stored in (("record", entry.record), ("extra", entry.extra)):
            if stored is not None:
                places[entry.name, part] = tuple(place(chunk) for chunk in stored.chunks)
    for cursor in cursors.values():
        cursor.finish()
    return places
