"""Appending to a file: aligned sections, checked as they are written."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from formats.checksum import hexdigest
from formats.codecs import zstd
from formats.errors import named
from formats.layout import (
    SLOT_OFFSETS,
    TRAILER,
    RootPointer,
    features_of,
    pack_slot,
    pack_trailer,
)
from formats.sections import SectionRef, aligned

if TYPE_CHECKING:
    from formats.buffers import Buffer

_COPY_NBYTES = 8 << 20


class Appender:
    """Writes behind ``position``; nothing before it is ever touched except a root slot.

    Args:
        fd: Open for reading and writing; stays the caller's.
        superblock: The file's, already written.
        position: Where to go on.
        path: Of the store, for what the system refuses.
    """

    def __init__(self, fd: int, superblock: bytes, position: int, *, path: str) -> None:
        self._fd = fd
        self._path = path
        self._superblock = superblock
        self.position = position

    @property
    def features(self) -> int:
        """Feature bits that the file was created with."""
        return features_of(self._superblock)

    def align(self) -> int:
        """Moves to the next aligned offset and returns it; the gap reads as zeros."""
        gap = aligned(self.position) - self.position
        self._write(bytes(gap))
        return self.position

    def section(self, *buffers: Buffer, raw_nbytes: int | None = None) -> SectionRef:
        """Writes one section from consecutive buffers."""
        offset = self.align()
        for buffer in buffers:
            self._write(buffer)
        return SectionRef(offset, self.position - offset, hexdigest(*buffers), raw_nbytes)

    def compressed(self, data: bytes, *, dictionary: bytes | None = None) -> SectionRef:
        """Writes a section as a zstd frame if that is smaller, else as it is."""
        frame = zstd.compress(data, dictionary=dictionary) if data else data
        if len(frame) < len(data):
            return self.section(frame, raw_nbytes=len(data))
        return self.section(data)

    def copy(self, source: Buffer) -> int:
        """Copies a range as it is to the next aligned offset, which is returned."""
        offset = self.align()
        view = memoryview(source)
        for first in range(0, len(view), _COPY_NBYTES):
            self._write(view[first : first + _COPY_NBYTES])
        return offset

    def write_trailer(self, root: SectionRef, generation: int) -> RootPointer:
        """Ends a generation with its trailer and makes everything durable but its root slot.

        ``root`` must be the section written last.
        """
        pointer = RootPointer(generation, root.offset, root.nbytes, bytes.fromhex(root.checksum), 0)
        pointer = replace(pointer, committed_nbytes=pointer.trailer_offset + TRAILER.size)
        self.align()
        self._write(pack_trailer(pointer, self._superblock))
        with named(self._path):
            os.fsync(self._fd)
        return pointer

    def write_slot(self, pointer: RootPointer) -> None:
        """Writes the root slot of the pointer's generation and makes it durable."""
        slot = pack_slot(pointer, self._superblock)
        with named(self._path):
            os.pwrite(self._fd, slot, SLOT_OFFSETS[pointer.generation % 2])
            os.fsync(self._fd)

    def _write(self, buffer: Buffer) -> None:
        view = memoryview(buffer).cast("B")
        with named(self._path):
            while view:
                written = os.pwrite(self._fd, view, self.position)
                self.position += written
                view = view[written:]
