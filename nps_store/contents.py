"""What a task has instead of the base's values, as a store holds it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

from formats.parallel import ordered_map
from nps_store.checkpoint import DTYPES
from nps_store.records import patch_of, run_of, values_of
from nps_store.shards import TensorSpec
from nps_store.switch import Patch, Replace
from nps_store.task import task_nbytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence, Set

    from torch import Tensor

    from formats.container import Container
    from formats.directory import TaskDirectory, TensorEntry
    from formats.task_reader import TaskReader


@dataclass(frozen=True)
class Change:
    """What a task has at one of its tensors instead of the base's values.

    Attributes:
        name: The tensor's name in the task.
        base: The base tensor it derives from; None for a new tensor (a head).
        patch: The change of the base's values; a `Replace` for a new tensor.
        rows: Rows appended to the base's, or None.
    """

    name: str
    base: str | None
    patch: Patch | None
    rows: Tensor | None = None


class Content(Protocol):
    """A task's tensors.

    Attributes:
        directory: Names, dtype, files and what is noted of the task.
        content_hash: Changes whenever anything of the task does.
        nbytes: Bytes it takes in the store.
    """

    directory: TaskDirectory

    @property
    def content_hash(self) -> str: ...
    @property
    def nbytes(self) -> int: ...

    def derived(self) -> Set[int]:
        """Numbers of the base's tensors that it does not have as they are."""

    def specs(self) -> Iterator[TensorSpec]:
        """Of the tensors that `changes` gives, in its order."""

    def changes(self) -> Iterator[Change]:
        """One tensor at a time."""

    def changes_at_once(self) -> list[Change]:
        """The same in the form that is quickest to put in place."""


class StoredContent:
    """Of a task that lies in the file; as `Content`."""

    def __init__(self, container: Container, name: str) -> None:
        """Read the directory.

        Raises:
            TaskNotFoundError: There is no such task.
            FormatError: The directory is damaged.
        """
        self.directory = container.directory(name)
        self._container = container
        self._name = name

    @property
    def content_hash(self) -> str:
        """Over the directory, which holds the checksums of everything else."""
        return self._container.root.tasks[self._name].content_hash

    @property
    def nbytes(self) -> int:
        """Weights, directory, and the attached files that the base does not share."""
        return task_nbytes(self._container, self._name)

    def derived(self) -> Set[int]:
        """Those of entries, and those that are absent."""
        return {base for base in (*self.directory.tensors.bases, *self.directory.absent)
                if base is not None}  # fmt: skip

    def specs(self) -> Iterator[TensorSpec]:
        """Of all entries."""
        for entry in self.directory.tensors:
            yield TensorSpec(entry.name, entry.dtype, entry.shape)

    def changes(self) -> Iterator[Change]:
        """Entry by entry."""
        reader = self._container.task_reader(self._name)
        return self._one_by_one(reader, tuple(reader))

    def changes_at_once(self) -> list[Change]:
        """Usual records by one compiled call."""
        reader = self._container.task_reader(self._name)
        blocks, tensors = reader.sign_blocks(), reader.directory.tensors
        if blocks is None:
            return [*self._one_by_one(reader, tuple(reader))]
        run, known = run_of(blocks), self._container.base.tensors
        rows = zip(tensors.signs.numbers.tolist(), tensors.signs.bases.tolist(), run, strict=True)
        changes = {
            number: Change(tensors.names[number], known[base].name, patch)
            for number, base, patch in rows
        }
        others = self._one_by_one(reader, tuple(tensors.others.values()))
        changes.update(zip(tensors.others, others, strict=True))
        return [changes[number] for number in range(len(tensors))]

    def _one_by_one(self, reader: TaskReader, entries: Sequence[TensorEntry]) -> Iterator[Change]:
        return ordered_map(partial(self._change, reader), entries, cost=attrgetter("n_values"))

    def _change(self, reader: TaskReader, entry: TensorEntry) -> Change:
        record, extra = reader.record(entry), reader.extra(entry)  # noqa: S610 (not Django's)
        dtype = DTYPES[entry.dtype]
        if entry.base is None:
            if record is None:
                raise ValueError(f"tensor {entry.name!r} has neither base nor record")
            return Change(entry.name, None, Replace(values_of(record, entry.shape, dtype)))
        base = self._container.base.tensors[entry.base]
        rows = None
        if extra is not None:
            shape = (entry.shape[0] - base.shape[0], *entry.shape[1:])
            rows = values_of(extra, shape, dtype)
        return Change(entry.name, base.name, None if record is None else patch_of(record), rows)
