"""Which generation a file holds: both root slots, and trailers where a slot is damaged.

A crash leaves both slots valid or, at worst, tears the one that was being written; the trailer of
that commit is then already durable. So a damaged slot is never a reason to fall back: whatever
generation it named is looked for behind the other slot's committed bytes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from formats.checksum import digest
from formats.errors import NoValidRootError, TruncatedError
from formats.layout import (
    DATA_OFFSET,
    SLOT,
    SLOT_OFFSETS,
    SUPERBLOCK,
    TRAILER,
    TRAILER_MAGIC,
    RootPointer,
    check_superblock,
    parse_slot,
    parse_trailer,
)
from formats.sections import ALIGNMENT
from formats.sources import FileSource

if TYPE_CHECKING:
    from formats.sources import ByteSource

RETRIES = 5
RETRY_PAUSE_S = 0.002
_WINDOW_NBYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class RootSelection:
    """What opening a file found.

    Attributes:
        pointer: The newest generation.
        superblock: Its bytes, which the checksums of slots and trailers cover.
        damaged_slots: Numbers of the root slots that are not valid.
        recovered: Whether the pointer came from a trailer.
    """

    pointer: RootPointer
    superblock: bytes
    damaged_slots: tuple[int, ...] = ()
    recovered: bool = False


def select_root(source: int | ByteSource) -> RootSelection:
    """Finds the newest committed generation of an open file or another source.

    Raises:
        FormatError: It is no store, or not one that this reader understands.
        TruncatedError: A slot's committed length exceeds the file.
        NoValidRootError: Neither a slot nor a trailer is valid.
    """
    if isinstance(source, int):
        source = FileSource(source)
    superblock, slots = _read_head(source)
    file_nbytes = source.nbytes
    valid = [pointer for pointer in slots if pointer is not None]
    valid.sort(key=lambda pointer: pointer.generation, reverse=True)
    for pointer in valid:
        if pointer.committed_nbytes > file_nbytes:
            raise TruncatedError(
                "file is shorter than its committed length",
                where=f"generation {pointer.generation}",
                expected=f"{pointer.committed_nbytes} bytes",
                actual=f"{file_nbytes} bytes",
                hint="restore the file from a copy",
            )
    newest = valid[0] if valid else None
    if len(valid) == len(slots) and newest is not None:
        return RootSelection(newest, superblock)
    damaged = tuple(slot for slot, pointer in enumerate(slots) if pointer is None)
    start = DATA_OFFSET if newest is None else newest.committed_nbytes
    found = _newest_trailer(source, superblock, start, file_nbytes)
    if found is not None and (newest is None or found.generation > newest.generation):
        return RootSelection(found, superblock, damaged, recovered=True)
    if newest is None:
        raise NoValidRootError(
            "both root slots are damaged and no valid trailer was found",
            hint="restore the file from a copy",
        )
    return RootSelection(newest, superblock, damaged)


def _read_head(source: ByteSource) -> tuple[bytes, list[RootPointer | None]]:
    """Superblock and both slots; what looks damaged is read again, a writer may be at it."""
    superblock, slots = b"", list[RootPointer | None]()
    for attempt in range(RETRIES):
        if attempt:
            time.sleep(RETRY_PAUSE_S)
        head = source.read_range(0, DATA_OFFSET)
        superblock = head[: SUPERBLOCK.size]
        check_superblock(superblock)
        if len(head) < DATA_OFFSET:
            raise TruncatedError("file ends within the root slots", actual=f"{len(head)} bytes")
        slots = [
            parse_slot(head[offset : offset + SLOT.size], superblock, slot=slot)
            for slot, offset in enumerate(SLOT_OFFSETS)
        ]
        if None not in slots:
            break
    return superblock, slots


def _newest_trailer(
    source: ByteSource, superblock: bytes, start: int, end: int
) -> RootPointer | None:
    """The last valid trailer within ``start:end`` whose root index is intact."""
    magic = int.from_bytes(TRAILER_MAGIC, "little")
    stop = end // ALIGNMENT * ALIGNMENT
    while stop > start:
        first = max(start, stop - _WINDOW_NBYTES)
        window = source.read_range(first, stop - first)
        words = np.frombuffer(window[: len(window) // 8 * 8], "<u8")[:: ALIGNMENT // 8]
        for index in np.flatnonzero(words == magic)[::-1]:
            at = int(index) * ALIGNMENT
            pointer = parse_trailer(window[at : at + TRAILER.size], superblock, offset=first + at)
            if pointer is not None and _root_is_intact(source, pointer):
                return pointer
        stop = first
    return None


def _root_is_intact(source: ByteSource, pointer: RootPointer) -> bool:
    root = source.read_range(pointer.offset, pointer.nbytes)
    return len(root) == pointer.nbytes and digest(root) == pointer.checksum
