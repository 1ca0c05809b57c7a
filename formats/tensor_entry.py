"""One tensor of a task: what it derives from and what is stored of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from formats.base import BaseTensor, shape_from_json
from formats.canonical import JSON, as_int, as_name, as_str, closed
from formats.dtypes import element_count, itemsize
from formats.encoding import RecordEntry
from formats.errors import MalformedIndexError, SizeMismatchError, UnknownEncodingError, located

if TYPE_CHECKING:
    from collections.abc import Sequence


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

    @property
    def n_values(self) -> int:
        """About as many values as its records decode to."""
        parts = (part for part in (self.record, self.extra) if part is not None)
        numel = math.prod(self.shape)
        return sum(numel if part.n_kept is None else part.n_kept for part in parts)

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
        if part.kind == "factors" and (part is self.extra or self.base is None):
            raise UnknownEncodingError("factors need a base tensor, which they change")
        if part.is_ranked and (part is self.extra or self.base is None):
            raise UnknownEncodingError("ranked positions need a base tensor, whose name seeds them")
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
    def from_json(cls, value: JSON, base: Sequence[BaseTensor], prefix: str) -> TensorEntry:
        """Inverse of :meth:`to_json`, checked."""
        keys = ("base", "name", "dtype", "shape", "record", "extra")
        fields = closed(value, "object", required=(), optional=keys)
        index, name, dtype = None, "", ""
        shape: tuple[int, ...] = ()
        if "base" in fields:
            index = as_int(fields["base"], "base", high=len(base) - 1)
            origin = base[index]
            name, dtype, shape = prefix + origin.name, origin.dtype, origin.shape
        elif not {"name", "dtype", "shape"} <= fields.keys():
            raise MalformedIndexError(
                "a new tensor needs name, dtype and shape", actual=sorted(fields)
            )
        entry = cls(
            as_name(fields.get("name", name), "name"),
            as_str(fields["dtype"], "dtype") if "dtype" in fields else dtype,
            shape_from_json(fields["shape"], "shape") if "shape" in fields else shape,
            index,
            RecordEntry.from_json(fields["record"], "record") if "record" in fields else None,
            RecordEntry.from_json(fields["extra"], "extra") if "extra" in fields else None,
        )
        entry.check(base)
        return entry
