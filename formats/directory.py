"""The directory of one task: which tensors differ from the base and how they are stored."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from formats.attachments import FileRef, files_from_json, files_to_json
from formats.base import BaseTensor, check_unique
from formats.canonical import JSON, as_int, as_list, as_name, as_object, as_str, closed
from formats.dither import tensor_seed
from formats.dtypes import itemsize
from formats.encoding import STREAMS
from formats.errors import (
    MalformedIndexError,
    SectionLayoutError,
    UnknownEncodingError,
)
from formats.sections import SectionRef, aligned
from formats.tensor_entry import TensorEntry
from formats.tensor_table import TensorTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["TaskDirectory", "TensorEntry"]


@dataclass(frozen=True, slots=True)
class TaskDirectory:
    """One task.

    A base tensor that is neither listed in ``absent`` nor the base of any entry belongs to the
    task unchanged, under the name ``prefix + base name``.

    Attributes:
        name: Of the task.
        prefix: What the task's checkpoint puts before the base's tensor names.
        dtype: The dtype that the task was compressed for, if not the base's.
        tensors: Entries in the order of their chunks in the streams.
        absent: Base tensors that the task does not have, increasing.
        files: Attached files by file name.
        meta: Calibration, measured quality and anything else.
        streams: Sections of every stream in order; offsets count from the extent's start.
        dither: Names the random numbers by which positions are coded, None if none are.
    """

    name: str
    prefix: str = ""
    dtype: str | None = None
    tensors: TensorTable = field(default_factory=lambda: TensorTable.of(()))
    absent: tuple[int, ...] = ()
    files: Mapping[str, FileRef] = field(default_factory=dict)
    meta: Mapping[str, JSON] = field(default_factory=dict)
    streams: Mapping[str, tuple[SectionRef, ...]] = field(default_factory=dict)
    dither: str | None = None

    def seed(self, entry: TensorEntry, base: Sequence[BaseTensor]) -> int | None:
        """Seed of a tensor's random numbers, if there are any."""
        if self.dither is None or entry.base is None:
            return None
        return tensor_seed(self.dither, base[entry.base].name)

    def sections(self) -> Iterator[tuple[str, SectionRef]]:
        """All sections with the name of their stream, by offset."""
        pairs = [(stream, ref) for stream, refs in self.streams.items() for ref in refs]
        return iter(sorted(pairs, key=lambda pair: pair[1].offset))

    def check(self, base: Sequence[BaseTensor]) -> None:
        """Checks what concerns more than one tensor.

        Raises:
            DuplicateNameError: Two tensors of the task have one name.
            UnknownEncodingError: The task's dtype is unknown.
            MalformedIndexError: An absent tensor is out of range, out of order or in use, or
                positions are coded by random numbers that are not named.
        """
        if self.dtype is not None:
            itemsize(self.dtype)
        derived = {*self.tensors.bases}
        bounded = (-1, *self.absent, len(base))
        in_order = all(a < b for a, b in itertools.pairwise(bounded))
        if not in_order or not derived.isdisjoint(self.absent):
            raise MalformedIndexError(
                "absent tensors must increase, exist and derive nothing",
                where=f"task {self.name!r}",
                actual=self.absent[:8],
            )
        if self.dither is None and self.tensors.has_ranked:
            raise MalformedIndexError("ranked positions need dither", where=f"task {self.name!r}")
        unchanged = derived.union(self.absent)
        names = self.tensors.names.copy()
        names += [self.prefix + t.name for i, t in enumerate(base) if i not in unchanged]
        check_unique(iter(names), f"task {self.name!r}")

    def check_extent(self, directory_offset: int) -> None:
        """Checks that the sections fill the extent up to the directory, but for alignment.

        Raises:
            SectionLayoutError: They overlap or leave holes.
        """
        position = 0
        for stream, ref in self.sections():
            if ref.offset != aligned(position) or not ref.nbytes:
                raise SectionLayoutError(
                    "sections of a task do not follow each other",
                    where=f"task {self.name!r} {stream}",
                    expected=f"offset {aligned(position)}",
                    actual=f"offset {ref.offset}, {ref.nbytes} bytes",
                )
            position = ref.end
        if directory_offset != aligned(position):
            raise SectionLayoutError(
                "directory does not follow the sections of its task",
                where=f"task {self.name!r}",
                expected=aligned(position),
                actual=directory_offset,
            )

    def to_json(self, base: Sequence[BaseTensor]) -> JSON:
        """The directory document."""
        fields: dict[str, JSON] = {
            "name": self.name,
            "prefix": self.prefix,
            "dtype": self.dtype,
            "tensors": [entry.to_json(base, self.prefix) for entry in self.tensors],
            "absent": list(self.absent),
            "files": files_to_json(self.files),
            "meta": dict(self.meta),
            "streams": {
                stream: [ref.to_json() for ref in refs] for stream, refs in self.streams.items()
            },
        }
        if self.dither is not None:
            fields["dither"] = self.dither
        return fields

    @classmethod
    def from_json(cls, value: JSON, *, name: str, base: Sequence[BaseTensor]) -> TaskDirectory:
        """Parses and checks the directory of the task that the root index calls ``name``.

        Raises:
            FormatError: The class says which rule is broken.
        """
        where = f"task {name!r}"
        keys = ("name", "prefix", "dtype", "tensors", "absent", "files", "meta", "streams")
        fields = closed(value, where, required=keys, optional=("dither",))
        if fields["name"] != name:
            raise MalformedIndexError(
                "directory of another task", expected=repr(name), actual=repr(fields["name"])
            )
        prefix = as_str(fields["prefix"], f"{where} prefix")
        dtype = None if fields["dtype"] is None else as_str(fields["dtype"], f"{where} dtype")
        tensors = TensorTable.from_json(fields["tensors"], base, prefix, where)
        absent = as_list(fields["absent"], f"{where} absent")
        directory = cls(
            name,
            prefix,
            dtype,
            tensors,
            tuple(as_int(index, f"{where} absent") for index in absent),
            files_from_json(fields["files"], f"{where} files"),
            as_object(fields["meta"], f"{where} meta"),
            _streams(fields["streams"], where),
            as_name(fields["dither"], f"{where} dither") if "dither" in fields else None,
        )
        directory.check(base)
        return directory


def _streams(value: JSON, where: str) -> dict[str, tuple[SectionRef, ...]]:
    streams = {}
    for stream, refs in as_object(value, f"{where} streams").items():
        if stream not in STREAMS:
            raise UnknownEncodingError("unknown stream", where=where, actual=repr(stream))
        streams[stream] = tuple(
            SectionRef.from_json(ref, f"{where} {stream}")
            for ref in as_list(refs, f"{where} {stream}")
        )
    return streams
