"""The record of the base: what every task of a store is relative to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from formats.attachments import FileRef, files_from_json, files_to_json
from formats.canonical import JSON, as_checksum, as_int, as_list, as_name, as_object, as_str, closed
from formats.dtypes import element_count
from formats.errors import DuplicateNameError, MalformedIndexError, SizeLimitError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_TENSORS = 1 << 20
STORAGES = ("external", "embedded")


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
