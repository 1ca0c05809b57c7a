"""References to attached files, which are stored once per content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from formats.canonical import (
    JSON,
    as_checksum,
    as_file_name,
    as_int,
    as_list,
    closed,
    mapping_from_json,
)
from formats.sections import SectionRef

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class FileRef:
    """An attached file by content: hex xxh3-128 and length in bytes."""

    hash: str
    nbytes: int

    def to_json(self) -> JSON:
        """``[hash, nbytes]``."""
        return [self.hash, self.nbytes]

    @classmethod
    def from_json(cls, value: JSON, where: str) -> FileRef:
        """Inverse of :meth:`to_json`."""
        fields = as_list(value, where, lengths=(2,))
        return cls(as_checksum(fields[0], where), as_int(fields[1], where))


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Where an attached file lies.

    Attributes:
        section: Its bytes, as they are or as one zstd frame.
        dictionary: Hash of the file it was compressed against, if any.
    """

    section: SectionRef
    dictionary: str | None = None

    @property
    def nbytes(self) -> int:
        """Length of the file."""
        return self.section.content_nbytes

    def to_json(self) -> JSON:
        """``{"section": ..., "dictionary"?: ...}``."""
        fields: dict[str, JSON] = {"section": self.section.to_json()}
        return fields if self.dictionary is None else {**fields, "dictionary": self.dictionary}

    @classmethod
    def from_json(cls, value: JSON, where: str) -> StoredFile:
        """Inverse of :meth:`to_json`."""
        fields = closed(value, where, required=("section",), optional=("dictionary",))
        dictionary = fields.get("dictionary")
        return cls(
            SectionRef.from_json(fields["section"], where),
            None if dictionary is None else as_checksum(dictionary, f"{where} dictionary"),
        )


def files_to_json(files: Mapping[str, FileRef]) -> JSON:
    """Attached files by file name."""
    return {name: ref.to_json() for name, ref in files.items()}


def files_from_json(value: JSON, where: str) -> dict[str, FileRef]:
    """Inverse of :func:`files_to_json`."""
    return mapping_from_json(value, where, as_file_name, FileRef.from_json)
