"""The directory of one task: which tensors differ from the base and how they are stored."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from formats.canonical import JSON, as_int, as_list, as_name, as_object, as_str, closed
from formats.dtypes import element_count, itemsize
from formats.encoding import STREAMS, RecordEntry
from formats.errors import (
    MalformedIndexError,
    SectionLayoutError,
    SizeMismatchError,
    UnknownEncodingError,
    located,
)
from formats.index import (
    BaseTensor,
    FileRef,
    check_unique,
    files_from_json,
    files_to_json,
    shape_from_json,
    tensors_from_json,
)
from formats.sections import SectionRef, aligned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a task.

    Attributes:
        name: In the task's checkpoint.
        dtype: In the task's checkpoint.
        shape: In the task's checkpoint.
        base: Index of the base tensor it derives from, None for a new tensor.
        record: Over the whole tensor or, where it grew, over the base's rows; None when those
            equal the base.
        extra: Over the rows appended to the base's, None when there are none.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    base: int | None = None
    record: RecordEntry | None = None
    extra: RecordEntry | None = None

    @property
    def encoding(self) -> str:
        """For people: how the tensor is stored."""
        parts = [part.encoding for part in (self.record, self.extra) if part is not None]
        return " + ".join(parts) or "base"

    @property
    def nbytes(self) -> int:
        """Stored bytes (before the compression of whole sections)."""
        return sum(part.nbytes for part in (self.record, self.extra) if part is not None)

    def shapes(self, base: Sequence[BaseTensor]) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        """Shapes that ``record`` and ``extra`` cover; None for the second if nothing grew.

        Raises:
            SizeMismatchError: The shape is neither the base's nor that with more rows.
        """
        if self.base is None or self.shape == base[self.base].shape:
            return self.shape, None
        common = base[self.base].shape
        grew = (
            len(self.shape) == len(common)
            and self.shape[1:] == common[1:]
            and self.shape[0] > common[0]
        )
        if not grew:
            raise SizeMismatchError(
                "shape is not the base's, nor the base's with rows appended",
                where=f"tensor {self.name!r}",
                expected=common,
                actual=self.shape,
                hint="store a tensor of another shape as a new one (base None)",
            )
        return common, (self.shape[0] - common[0], *common[1:])

    def check(self, base: Sequence[BaseTensor]) -> None:
        """Checks the entry against the base and its records against the shapes.

        Raises:
            FormatError: The class says which rule is broken.
        """
        with located(where=f"tensor {self.name!r}"):
            element_count(self.shape, self.dtype)
            common, appended = self.shapes(base)
            if (self.extra is None) != (appended is None):
                raise SizeMismatchError(
                    "an extra record and appended rows go together", actual=self.shape
                )
            if self.base is None and self.record is None:
                raise SizeMismatchError("a new tensor has no record")
            for part, shape in ((self.record, common), (self.extra, appended)):
                if part is not None and shape is not None:
                    self._check_part(part, shape, base)

    def _check_part(
        self, part: RecordEntry, shape: tuple[int, ...], base: Sequence[BaseTensor]
    ) -> None:
        if part.dtype is not None:
            itemsize(part.dtype)
        if part.kind == "xor_bits" and (
            part is self.extra
            or self.base is None
            or base[self.base].dtype != self.dtype
            or part.dtype is not None
        ):
            raise UnknownEncodingError("xor_bits needs a base of the same dtype")
        rows = shape[0] if shape else 1
        part.check(numel=math.prod(shape), rows=rows, dtype=self.dtype)

    def to_json(self, base: Sequence[BaseTensor], prefix: str) -> JSON:
        """The tensor's object in a directory, less what it shares with its base tensor."""
        fields: dict[str, JSON] = {}
        if self.base is not None:
            fields["base"] = self.base
        origin = None if self.base is None else base[self.base]
        if origin is None or self.name != prefix + origin.name:
            fields["name"] = self.name
        if origin is None or self.dtype != origin.dtype:
            fields["dtype"] = self.dtype
        if origin is None or self.shape != origin.shape:
            fields["shape"] = list(self.shape)
        if self.record is not None:
            fields["record"] = self.record.to_json()
        if self.extra is not None:
            fields["extra"] = self.extra.to_json()
        return fields

    @classmethod
    def from_json(
        cls, value: JSON, where: str, base: Sequence[BaseTensor], prefix: str
    ) -> TensorEntry:
        """Inverse of :meth:`to_json`, checked."""
        keys = ("base", "name", "dtype", "shape", "record", "extra")
        fields = closed(value, where, required=(), optional=keys)
        index = None
        if "base" in fields:
            index = as_int(fields["base"], f"{where} base", high=len(base) - 1)
            origin = base[index]
            shared: dict[str, JSON] = {
                "name": prefix + origin.name,
                "dtype": origin.dtype,
                "shape": list(origin.shape),
            }
            fields = shared | fields
        elif not {"name", "dtype", "shape"} <= fields.keys():
            raise MalformedIndexError(
                "a new tensor needs name, dtype and shape", where=where, actual=sorted(fields)
            )
        entry = cls(
            as_name(fields["name"], f"{where} name"),
            as_str(fields["dtype"], f"{where} dtype"),
            shape_from_json(fields["shape"], f"{where} shape"),
            index,
            RecordEntry.from_json(fields["record"], where) if "record" in fields else None,
            RecordEntry.from_json(fields["extra"], f"{where} extra") if "extra" in fields else None,
        )
        entry.check(base)
        return entry


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
    """

    name: str
    prefix: str = ""
    dtype: str | None = None
    tensors: tuple[TensorEntry, ...] = ()
    absent: tuple[int, ...] = ()
    files: Mapping[str, FileRef] = field(default_factory=dict)
    meta: Mapping[str, JSON] = field(default_factory=dict)
    streams: Mapping[str, tuple[SectionRef, ...]] = field(default_factory=dict)

    def sections(self) -> Iterator[tuple[str, SectionRef]]:
        """All sections with the name of their stream, by offset."""
        pairs = [(stream, ref) for stream, refs in self.streams.items() for ref in refs]
        return iter(sorted(pairs, key=lambda pair: pair[1].offset))

    def check(self, base: Sequence[BaseTensor]) -> None:
        """Checks what concerns more than one tensor.

        Raises:
            DuplicateNameError: Two tensors of the task have one name.
            MalformedIndexError: An absent tensor is out of range, out of order or in use.
        """
        derived = {entry.base for entry in self.tensors}
        in_order = all(a < b for a, b in zip(self.absent, self.absent[1:], strict=False))
        if (
            not in_order
            or not derived.isdisjoint(self.absent)
            or max(self.absent, default=-1) >= len(base)
        ):
            raise MalformedIndexError(
                "absent tensors must increase, exist and derive nothing",
                where=f"task {self.name!r}",
                actual=self.absent[:8],
            )
        unchanged = derived.union(self.absent)
        names = [entry.name for entry in self.tensors]
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
        return {
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

    @classmethod
    def from_json(cls, value: JSON, *, name: str, base: Sequence[BaseTensor]) -> TaskDirectory:
        """Parses and checks the directory of the task that the root index calls ``name``.

        Raises:
            FormatError: The class says which rule is broken.
        """
        where = f"task {name!r}"
        keys = ("name", "prefix", "dtype", "tensors", "absent", "files", "meta", "streams")
        fields = closed(value, where, required=keys)
        if fields["name"] != name:
            raise MalformedIndexError(
                "directory of another task", expected=repr(name), actual=repr(fields["name"])
            )
        prefix = as_str(fields["prefix"], f"{where} prefix")
        dtype = None if fields["dtype"] is None else as_str(fields["dtype"], f"{where} dtype")
        if dtype is not None:
            itemsize(dtype)
        with located(where=where):
            tensors = tuple(
                TensorEntry.from_json(item, f"tensor {i}", base, prefix)
                for i, item in enumerate(tensors_from_json(fields["tensors"], where))
            )
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
