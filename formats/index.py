"""The root index: what one committed generation consists of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from formats.attachments import FileRef, StoredFile
from formats.base import BaseRecord, BaseTensor
from formats.canonical import (
    JSON,
    as_checksum,
    as_int,
    as_name,
    as_object,
    closed,
    mapping_from_json,
)
from formats.errors import (
    SectionLayoutError,
)
from formats.sections import SectionRef, check_disjoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_ROOT_NBYTES = 64 << 20
MAX_DIRECTORY_NBYTES = 256 << 20
_ENTRY_KEYS = frozenset({"first_offset", "directory"})

__all__ = [
    "BaseRecord",
    "BaseTensor",
    "FileRef",
    "RootIndex",
    "SectionRef",
    "StoredFile",
    "TaskEntry",
]


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """Where a task lies.

    Attributes:
        directory: Its directory, the last section of the extent.
        first_offset: Start of the extent in the file.
        nbytes: Bytes of the extent, directory included.
    """

    directory: SectionRef
    first_offset: int
    nbytes: int

    @property
    def content_hash(self) -> str:
        """Hex hash over the directory, which holds the checksums of everything else."""
        return self.directory.checksum

    def to_json(self) -> JSON:
        """``{"first_offset": ..., "directory": [...]}``."""
        return {"first_offset": self.first_offset, "directory": self.directory.to_json()}

    @classmethod
    def from_json(cls, value: JSON, where: str) -> TaskEntry:
        """Inverse of :meth:`to_json`."""
        fields = closed(value, where, required=_ENTRY_KEYS)
        first_offset = as_int(fields["first_offset"], where)
        directory = SectionRef.from_json(fields["directory"], where)
        if first_offset % 64 or first_offset > directory.offset:
            raise SectionLayoutError(
                "extent does not begin at a section before its directory",
                where=where,
                actual=first_offset,
            )
        return cls(directory, first_offset, directory.end - first_offset)


@dataclass(frozen=True, slots=True)
class RootIndex:
    """One committed generation.

    Attributes:
        base: Section of the base record.
        base_data: The tensors of an embedded base, None for an external one.
        tasks: By name.
        files: Attached files by hash.
        recipes: Virtual tasks by name.
        meta: Anything else.
    """

    base: SectionRef
    base_data: TaskEntry | None = None
    tasks: Mapping[str, TaskEntry] = field(default_factory=dict)
    files: Mapping[str, StoredFile] = field(default_factory=dict)
    recipes: Mapping[str, JSON] = field(default_factory=dict)
    meta: Mapping[str, JSON] = field(default_factory=dict)

    def to_json(self) -> JSON:
        """The root index document."""
        return {
            "base": self.base.to_json(),
            "base_data": None if self.base_data is None else self.base_data.to_json(),
            "tasks": {name: entry.to_json() for name, entry in self.tasks.items()},
            "files": {key: stored.to_json() for key, stored in self.files.items()},
            "recipes": dict(self.recipes),
            "meta": dict(self.meta),
        }

    @classmethod
    def from_json(cls, value: JSON) -> RootIndex:
        """Parses and checks the root index document."""
        keys = ("base", "base_data", "tasks", "files", "recipes", "meta")
        fields = closed(value, "root index", required=keys)
        data = fields["base_data"]
        return cls(
            SectionRef.from_json(fields["base"], "base record"),
            None if data is None else TaskEntry.from_json(data, "base data"),
            mapping_from_json(fields["tasks"], "task", as_name, TaskEntry.from_json),
            mapping_from_json(fields["files"], "file", as_checksum, StoredFile.from_json),
            mapping_from_json(fields["recipes"], "recipe", as_name, lambda recipe, _: recipe),
            as_object(fields["meta"], "meta"),
        )

    def ranges(self) -> Iterator[tuple[int, int, str]]:
        """``(offset, nbytes, name)`` of everything that the index refers to."""
        yield self.base.offset, self.base.nbytes, "base record"
        if self.base_data is not None:
            yield self.base_data.first_offset, self.base_data.nbytes, "base data"
        for name, entry in self.tasks.items():
            yield entry.first_offset, entry.nbytes, f"task {name!r}"
        for key, stored in self.files.items():
            yield stored.section.offset, stored.section.nbytes, f"file {key}"

    def check_layout(self, *, first: int, end: int) -> None:
        """Checks that all ranges lie apart within ``first:end``.

        Raises:
            SectionLayoutError: They do not.
        """
        check_disjoint(self.ranges(), first=first, end=end)
