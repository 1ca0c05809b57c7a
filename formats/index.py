"""The root index of a generation and the record of its base."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from formats.canonical import JSON, as_checksum, as_int, as_list, as_name, as_object, as_str, closed
from formats.dtypes import element_count
from formats.errors import (
    DuplicateNameError,
    MalformedIndexError,
    SectionLayoutError,
    SizeLimitError,
)
from formats.sections import SectionRef, check_disjoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")

MAX_ROOT_NBYTES = 64 << 20
MAX_DIRECTORY_NBYTES = 256 << 20
MAX_TENSORS = 1 << 20
STORAGES = ("external", "embedded")


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


@dataclass(frozen=True, slots=True)
class BaseTensor:
    """One tensor of the base; ``hash`` is hex xxh3-128 of its raw bits in C order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    hash: str

    @property
    def numel(self) -> int:
        """Number of elements."""
        return element_count(self.shape, self.dtype)

    def to_json(self) -> JSON:
        """``[name, dtype, shape, hash]``."""
        return [self.name, self.dtype, list(self.shape), self.hash]

    @classmethod
    def from_json(cls, value: JSON, where: str) -> BaseTensor:
        """Inverse of :meth:`to_json`."""
        fields = as_list(value, where, lengths=(4,))
        tensor = cls(
            as_name(fields[0], f"{where} name"),
            as_str(fields[1], f"{where} dtype"),
            shape_from_json(fields[2], f"{where} shape"),
            as_checksum(fields[3], f"{where} hash"),
        )
        element_count(tensor.shape, tensor.dtype)
        return tensor


@dataclass(frozen=True, slots=True)
class BaseRecord:
    """What every task of the store is relative to.

    Attributes:
        storage: "external" (the base lives elsewhere, its hashes are here) or "embedded".
        tensors: All tensors; tasks refer to them by index.
        files: The base's attached files by file name.
        path_hint: Where the base was found when it was recorded; never trusted.
        meta: Anything else.
    """

    storage: str
    tensors: tuple[BaseTensor, ...]
    files: Mapping[str, FileRef] = field(default_factory=dict)
    path_hint: str | None = None
    meta: Mapping[str, JSON] = field(default_factory=dict)

    def to_json(self) -> JSON:
        """The base record document."""
        return {
            "storage": self.storage,
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "files": files_to_json(self.files),
            "path_hint": self.path_hint,
            "meta": dict(self.meta),
        }

    @classmethod
    def from_json(cls, value: JSON) -> BaseRecord:
        """Parses and checks the base record document."""
        where = "base record"
        fields = closed(value, where, required=("storage", "tensors", "files", "path_hint", "meta"))
        storage = as_str(fields["storage"], f"{where} storage")
        if storage not in STORAGES:
            raise MalformedIndexError(
                "unknown storage of the base", expected=" or ".join(STORAGES), actual=repr(storage)
            )
        hint = fields["path_hint"]
        tensors = tuple(
            BaseTensor.from_json(item, f"base tensor {i}")
            for i, item in enumerate(tensors_from_json(fields["tensors"], where))
        )
        check_unique((tensor.name for tensor in tensors), where)
        return cls(
            storage,
            tensors,
            files_from_json(fields["files"], f"{where} files"),
            None if hint is None else as_str(hint, f"{where} path hint"),
            as_object(fields["meta"], f"{where} meta"),
        )


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
        fields = closed(value, where, required=("first_offset", "directory"))
        first_offset = as_int(fields["first_offset"], f"{where} first offset")
        directory = SectionRef.from_json(fields["directory"], f"{where} directory")
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
            _mapping(fields["tasks"], "task", as_name, TaskEntry.from_json),
            _mapping(fields["files"], "file", as_checksum, StoredFile.from_json),
            as_object(fields["recipes"], "recipes"),
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


def shape_from_json(value: JSON, where: str) -> tuple[int, ...]:
    """A tensor shape."""
    return tuple(as_int(size, where) for size in as_list(value, where))


def tensors_from_json(value: JSON, where: str) -> list[JSON]:
    """A list of tensors, not too long."""
    items = as_list(value, f"{where} tensors")
    if len(items) > MAX_TENSORS:
        raise SizeLimitError(
            "too many tensors", where=where, expected=f"<= {MAX_TENSORS}", actual=len(items)
        )
    return items


def files_to_json(files: Mapping[str, FileRef]) -> JSON:
    """Attached files by file name."""
    return {name: ref.to_json() for name, ref in files.items()}


def files_from_json(value: JSON, where: str) -> dict[str, FileRef]:
    """Inverse of :func:`files_to_json`."""
    return _mapping(value, where, as_name, FileRef.from_json)


def check_unique(names: Iterator[str], where: str) -> None:
    """Refuses a name that occurs twice.

    Raises:
        DuplicateNameError: One does.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DuplicateNameError("tensor name occurs twice", where=where, actual=repr(name))
        seen.add(name)


def _mapping(
    value: JSON,
    what: str,
    parse_key: Callable[[JSON, str], str],
    parse_item: Callable[[JSON, str], T],
) -> dict[str, T]:
    return {
        parse_key(key, f"{what} name"): parse_item(item, f"{what} {key!r}")
        for key, item in as_object(value, what).items()
    }
