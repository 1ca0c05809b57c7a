"""The fixed-size structures: superblock, root slots and trailers.

Everything else in a store is found through one of these 64-byte structures, so each carries its
own checksum, which also covers the superblock.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from formats.checksum import CHECKSUM_NBYTES, digest
from formats.errors import (
    BadMagicError,
    ChecksumMismatchError,
    TruncatedError,
    UnsupportedFeatureError,
    UnsupportedVersionError,
)
from formats.sections import ALIGNMENT, aligned

MAGIC = b"\x89NPS\r\n\x1a\n"
TRAILER_MAGIC = b"NPSTRAIL"
MAJOR, MINOR = 1, 3
RANKED = 1 << 0
"""Feature: positions may be coded by their dither (FORMAT.md 5.2)."""
OUTLIERS = 1 << 1
"""Feature: packed levels may have outliers (FORMAT.md 5.3)."""
FACTORS = 1 << 2
"""Feature: records may be factors, as adapters have them (FORMAT.md 5.5)."""
KNOWN_FEATURES = RANKED | OUTLIERS | FACTORS

SUPERBLOCK = struct.Struct("<8sHHIQ16s")
SLOT = struct.Struct("<QQQ16sQ16s")
TRAILER = struct.Struct("<8sQQQ16s16s")

BLOCK_NBYTES = 4096
SLOT_OFFSETS = (4096, 8192)
DATA_OFFSET = 12288


@dataclass(frozen=True, slots=True)
class RootPointer:
    """Where the root index of a generation lies.

    Attributes:
        generation: Counts commits from 1.
        offset: Of the root index in the file.
        nbytes: Stored length of the root index.
        checksum: xxh3-128 of the stored root index.
        committed_nbytes: File bytes that belong to the generation, its trailer included.
    """

    generation: int
    offset: int
    nbytes: int
    checksum: bytes
    committed_nbytes: int

    @property
    def trailer_offset(self) -> int:
        """Where the trailer of the generation lies."""
        return aligned(self.offset + self.nbytes)

    @property
    def is_consistent(self) -> bool:
        """Whether root index and trailer lie where a commit puts them."""
        return (
            self.offset >= DATA_OFFSET
            and self.offset % ALIGNMENT == 0
            and self.committed_nbytes == self.trailer_offset + TRAILER.size
        )


def pack_superblock(*, features: int = 0) -> bytes:
    """The superblock of this version."""
    head = struct.pack("<8sHHIQ", MAGIC, MAJOR, MINOR, 0, features)
    return head + digest(head)


def check_superblock(data: bytes) -> None:
    """Checks that a store begins with these bytes and that this reader understands it.

    Raises:
        BadMagicError: It is no store.
        TruncatedError: The file ends within the superblock.
        UnsupportedVersionError: Another major version.
        ChecksumMismatchError: The superblock is damaged.
        UnsupportedFeatureError: A feature bit is unknown.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise BadMagicError("not an NPS store", expected=MAGIC, actual=data[: len(MAGIC)])
    if len(data) < SUPERBLOCK.size:
        raise TruncatedError("file ends within the superblock", actual=f"{len(data)} bytes")
    _, major, minor, _, features, checksum = SUPERBLOCK.unpack(data[: SUPERBLOCK.size])
    if major != MAJOR:
        raise UnsupportedVersionError(
            "unsupported format version",
            expected=f"{MAJOR}.x",
            actual=f"{major}.{minor}",
            hint="use a release that reads this version",
        )
    actual = digest(data[: SUPERBLOCK.size - CHECKSUM_NBYTES])
    if actual != checksum:
        raise ChecksumMismatchError(
            "superblock is damaged", where="offset 0", expected=checksum.hex(), actual=actual.hex()
        )
    unknown = features & ~KNOWN_FEATURES
    if unknown:
        bits = [bit for bit in range(64) if unknown >> bit & 1]
        raise UnsupportedFeatureError(
            "store needs features that this reader does not have",
            actual=f"feature bits {bits}",
            hint="use a newer release",
        )


def features_of(superblock: bytes) -> int:
    """Feature bits of a superblock that was checked."""
    features: int = SUPERBLOCK.unpack(superblock)[4]
    return features


def pack_slot(pointer: RootPointer, superblock: bytes) -> bytes:
    """A root slot; its checksum covers the superblock and then the slot's fields."""
    fields = struct.pack(
        "<QQQ16sQ",
        pointer.generation,
        pointer.offset,
        pointer.nbytes,
        pointer.checksum,
        pointer.committed_nbytes,
    )
    return fields + digest(superblock, fields)


def parse_slot(data: bytes, superblock: bytes, *, slot: int) -> RootPointer | None:
    """The pointer in root slot 0 or 1, None when it is damaged."""
    if len(data) < SLOT.size:
        return None
    *fields, checksum = SLOT.unpack(data[: SLOT.size])
    if digest(superblock, data[: SLOT.size - CHECKSUM_NBYTES]) != checksum:
        return None
    pointer = RootPointer(*fields)
    return pointer if pointer.generation % 2 == slot and pointer.is_consistent else None


def pack_trailer(pointer: RootPointer, superblock: bytes) -> bytes:
    """The trailer that ends a generation; its checksum covers the superblock and its fields."""
    fields = struct.pack(
        "<8sQQQ16s",
        TRAILER_MAGIC,
        pointer.generation,
        pointer.offset,
        pointer.nbytes,
        pointer.checksum,
    )
    return fields + digest(superblock, fields)


def parse_trailer(data: bytes, superblock: bytes, *, offset: int) -> RootPointer | None:
    """The pointer in a trailer at ``offset`` of the file, None when there is no valid one."""
    if len(data) < TRAILER.size:
        return None
    magic, generation, root_offset, root_nbytes, root_checksum, checksum = TRAILER.unpack(
        data[: TRAILER.size]
    )
    if magic != TRAILER_MAGIC:
        return None
    if digest(superblock, data[: TRAILER.size - CHECKSUM_NBYTES]) != checksum:
        return None
    pointer = RootPointer(
        generation, root_offset, root_nbytes, root_checksum, offset + TRAILER.size
    )
    return pointer if pointer.is_consistent else None
