"""Reading one task: records decoded from mapped sections, each verified before its first use."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

import numpy as np

from formats import sign_blocks
from formats.chunk_places import ChunkPlaces
from formats.codecs import compiled, zstd
from formats.decode import decode_record
from formats.dither import tensor_seed
from formats.errors import FormatError, InvalidStateError, located

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from formats.buffers import Buffer
    from formats.directory import TaskDirectory, TensorEntry
    from formats.encoding import RecordEntry
    from formats.index import BaseTensor
    from formats.records import Record
    from formats.sections import SectionRef
    from formats.sign_blocks import SignBlocks


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
            self._places = ChunkPlaces(directory.tensors, directory.streams)
        self._numbers = {name: number for number, name in enumerate(directory.tensors.names)}

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

    def sign_blocks(self) -> SignBlocks | None:
        """The records of ``directory.tensors.signs``, all at once.

        Returns:
            None where they are to be decoded one by one: without the compiled loops, for few
            entries, or when something is wrong, which decoding one by one will tell.
        """
        rows, dither = self.directory.tensors.signs, self.directory.dither
        if dither is None or not len(rows) or not compiled.is_worth_it(int(rows.n_kept.sum())):
            return None
        names = [self._base[index].name for index in rows.bases.tolist()]
        seeds = np.array([tensor_seed(dither, name) for name in names], np.uint64)
        try:
            return sign_blocks.decode(rows, seeds, self._places, self._stream)
        except FormatError:
            return None

    def sections_of(self, entry: TensorEntry) -> frozenset[SectionRef]:
        """The sections that the entry's records lie in."""
        number = self._numbers[entry.name]
        parts = (("record", entry.record), ("extra", entry.extra))
        places = (self._places.of(number, part, stored) for part, stored in parts if stored)
        return frozenset(ref for each in places for ref, _ in each if ref is not None)

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

    def _stream(self, stream: str) -> Buffer:
        """Decoded bytes of a stream, verified."""
        refs = self.directory.streams.get(stream, ())
        contents = [self.section(stream, ref) for ref in refs]
        return contents[0] if len(contents) == 1 else b"".join(contents)

    def _verified(self, stream: str, ref: SectionRef) -> memoryview:
        content = self._extent[ref.offset : ref.end]
        ref.verify(content, stream)
        if ref.raw_nbytes is None:
            return content
        return memoryview(zstd.decompress(content, ref.raw_nbytes))

    def _decode(self, entry: TensorEntry, part: str) -> Record | None:
        stored: RecordEntry | None = getattr(entry, part)
        if stored is None:
            return None
        number = self._numbers.get(entry.name)
        if number is None or self.directory.tensors[number] != entry:
            raise InvalidStateError("entry of another task", where=f"tensor {entry.name!r}")
        common, appended = entry.shapes(self._base)
        shape = appended if part == "extra" and appended is not None else common
        with located(path=self._path, where=f"task {self.directory.name!r}, tensor {entry.name!r}"):
            places = self._places.of(number, part, stored)
            payload = {
                chunk.stream: self.section(chunk.stream, ref)[start : start + chunk.nbytes]
                if ref is not None
                else memoryview(b"")
                for chunk, (ref, start) in zip(stored.chunks, places, strict=True)
            }
            return decode_record(
                stored,
                payload,
                numel=math.prod(shape),
                rows=shape[0] if shape else 1,
                dtype=entry.dtype,
                seed=self.directory.seed(entry, self._base),
            )
