"""Writing the tensors of an embedded base, checked against its record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from formats.checksum import hexdigest
from formats.errors import InvalidRecordError
from formats.records import DenseBits, Record
from formats.task_writer import TaskWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from formats.attachments import FileRef
    from formats.canonical import JSON
    from formats.index import TaskEntry
    from formats.tensor_entry import TensorEntry


class BaseWriter(TaskWriter):
    """Writes the tensors of an embedded base and checks them against its record."""

    def add(
        self,
        name: str,
        *,
        dtype: str,
        shape: Sequence[int],
        base: int | None,
        record: Record | None,
        extra: Record | None = None,
    ) -> TensorEntry:
        """Writes one tensor of the base; like :meth:`TaskWriter.add`.

        Raises:
            InvalidRecordError: Not the raw bits of the base tensor of that index.
        """
        if base is None or not isinstance(record, DenseBits) or not 0 <= base < len(self._base):
            raise InvalidRecordError("an embedded base is made of DenseBits", where=repr(name))
        tensor = self._base[base]
        if (name, dtype, tuple(shape)) != (tensor.name, tensor.dtype, tensor.shape):
            raise InvalidRecordError(
                "not the tensor of the base record",
                where=repr(name),
                expected=f"{tensor.name!r} {tensor.dtype} {tensor.shape}",
                actual=f"{dtype} {tuple(shape)}",
            )
        if hexdigest(record.bits.data) != tensor.hash:
            raise InvalidRecordError("bits do not have the hash of the base record", where=name)
        return super().add(name, dtype=dtype, shape=shape, base=base, record=record, extra=extra)

    def finish(
        self,
        *,
        absent: Sequence[int] = (),
        files: Mapping[str, FileRef] | None = None,
        meta: Mapping[str, JSON] | None = None,
    ) -> TaskEntry:
        """Writes the directory of the base data.

        Raises:
            InvalidRecordError: A tensor of the base is missing.
        """
        missing = [tensor.name for tensor in self._base if tensor.name not in self._entries]
        if missing or absent or files:
            raise InvalidRecordError(
                "an embedded base has every tensor, and its files in the base record",
                expected=f"{len(self._base)} tensors",
                actual=f"{len(self._base) - len(missing)} tensors",
            )
        return super().finish(meta=meta)
