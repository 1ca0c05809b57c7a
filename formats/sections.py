"""References to the immutable byte ranges a store is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from formats.canonical import JSON, as_checksum, as_int, as_list
from formats.checksum import hexdigest
from formats.errors import ChecksumMismatchError, SectionLayoutError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from formats.buffers import Buffer

ALIGNMENT = 64


def aligned(position: int) -> int:
    """The first multiple of the alignment at or behind ``position``."""
    return -(-position // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, slots=True)
class SectionRef:
    """One section.

    Attributes:
        offset: Bytes from the start of the file; in a task directory from the start of the
            task's extent, so that an extent can be moved as it is.
        nbytes: Stored bytes.
        checksum: Hex xxh3-128 of the stored bytes.
        raw_nbytes: Decoded bytes of a section that is one zstd frame, None for one stored as is.
            (JSON sections are always frames and leave it None.)
    """

    offset: int
    nbytes: int
    checksum: str
    raw_nbytes: int | None = None

    @property
    def end(self) -> int:
        """Offset of the first byte behind the section."""
        return self.offset + self.nbytes

    @property
    def content_nbytes(self) -> int:
        """Bytes of the section once decompressed."""
        return self.nbytes if self.raw_nbytes is None else self.raw_nbytes

    def to_json(self) -> JSON:
        """``[offset, nbytes, checksum]`` and, for a compressed section, its decoded bytes."""
        fields: list[JSON] = [self.offset, self.nbytes, self.checksum]
        return fields if self.raw_nbytes is None else [*fields, self.raw_nbytes]

    @classmethod
    def from_json(cls, value: JSON, where: str) -> SectionRef:
        """Parses and checks alignment.

        Raises:
            MalformedIndexError: Not such a list.
            SectionLayoutError: The offset is not aligned.
        """
        fields = as_list(value, where, lengths=(3, 4))
        offset = as_int(fields[0], where)
        if offset % ALIGNMENT:
            raise SectionLayoutError(
                "section is not aligned",
                where=where,
                expected=f"a multiple of {ALIGNMENT}",
                actual=offset,
            )
        return cls(
            offset,
            as_int(fields[1], where),
            as_checksum(fields[2], where),
            as_int(fields[3], where, low=1) if len(fields) == 4 else None,
        )

    def verify(self, stored: Buffer, where: str) -> None:
        """Compares the checksum of the stored bytes.

        Raises:
            ChecksumMismatchError: They differ.
        """
        actual = hexdigest(stored)
        if actual != self.checksum:
            raise ChecksumMismatchError(
                "stored bytes are damaged",
                where=f"{where} at {self.offset}",
                expected=f"xxh3-128 {self.checksum}",
                actual=actual,
                hint="restore the file from a copy",
            )


def check_disjoint(ranges: Iterable[tuple[int, int, str]], *, first: int, end: int) -> None:
    """Checks that ``(offset, nbytes, name)`` ranges lie within ``first:end`` and apart.

    Raises:
        SectionLayoutError: Two overlap or one lies outside.
    """
    position, before = first, "the start"
    for offset, nbytes, name in sorted(ranges):
        if offset < position or offset + nbytes > end:
            raise SectionLayoutError(
                f"section overlaps {before} or leaves the committed bytes",
                where=name,
                expected=f"within {position}:{end}",
                actual=f"{offset}:{offset + nbytes}",
            )
        position, before = offset + nbytes, name
