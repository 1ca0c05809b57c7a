"""A store as its users see it: tasks by name, their weights, their files.

Reading takes no lock. A `Store` shows one generation until `refresh` is called.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from formats.container import Container
from formats.errors import located
from formats.parallel import ordered_map
from formats.roots import select_root
from nps_store.checkpoint import DTYPES
from nps_store.identity import find_base
from nps_store.records import patch_of, run_of, values_of
from nps_store.shards import TensorSpec
from nps_store.switch import Patch, Replace, apply_
from nps_store.task import Task, task_nbytes, tied

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from formats.attachments import FileRef
    from formats.base import BaseTensor
    from formats.directory import TaskDirectory, TensorEntry
    from formats.layout import RootPointer
    from formats.task_reader import TaskReader
    from nps_store.sources import BaseSource


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


class Store:
    """One `.nps` file and its base. Use `Store.open`; a context manager.

    Thread-safe, but for `close`: what is being read goes on from the generation it began with.
    """

    def __init__(self, path: Path, container: Container, base: BaseSource) -> None:
        self.path = path
        self.base = base
        self._container = container

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, base: str | os.PathLike[str] | None = None
    ) -> Store:
        """Open the newest generation and identify the base.

        Args:
            path: The store.
            base: Directory of an external base; by default where it was at compression.

        Raises:
            FileNotFoundError: There is no such store.
            FormatError: The file is damaged or no store.
            BaseNotFoundError: The base is external and not where it was.
            BaseMismatchError: The directory holds another base (names the first differing tensor).
        """
        container = Container.open(path)
        try:
            return cls(Path(path), container, find_base(container, base))
        except BaseException:
            container.close()
            raise

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, sorted."""
        return tuple(sorted(self._container.root.tasks))

    @property
    def generation(self) -> int:
        """Number of the generation that is shown."""
        return self._container.generation

    @property
    def nbytes(self) -> int:
        """Committed bytes of the file."""
        return self._container.nbytes

    @property
    def base_name(self) -> str:
        """What the base is called where tasks are models."""
        return str(self._container.base.meta.get("name") or "base")

    @property
    def base_tensors(self) -> tuple[BaseTensor, ...]:
        """Names, shapes, dtypes and hashes of the base's tensors."""
        return self._container.base.tensors

    def refresh(self) -> bool:
        """Show the newest generation; True if that is another one than before.

        A store that was made anew under the same path is told apart even at an equal number.
        """
        if newest_root(self.path) == self._container.selection.pointer:
            return False
        newest = Container.open(self.path)
        if newest.base.tensors != self._container.base.tensors:
            self.base = find_base(newest, None)
        # Not closed: another thread may be reading the old one, which goes with its last reader.
        self._container = newest
        return True

    def snapshot(self) -> Store:
        """The generation that is shown now, which a later `refresh` leaves as it is."""
        return Store(self.path, self._container, self.base)

    def content_hash(self, name: str) -> str | None:
        """Changes whenever anything of the task does; None if there is no such task."""
        entry = self._container.root.tasks.get(name)
        return None if entry is None else entry.content_hash

    def task(self, name: str) -> Task:
        """Everything about a task but its weights.

        Raises:
            TaskNotFoundError: There is no such task.
        """
        container = self._container
        directory = container.directory(name)
        return Task(
            directory,
            container.root.tasks[name],
            container.base.tensors,
            Files(container, directory.files, self.base),
            nbytes=task_nbytes(container, name),
        )

    def files(self, name: str) -> Files:
        """The task's attached files.

        Raises:
            TaskNotFoundError: There is no such task.
        """
        return Files(self._container, self._container.directory(name).files, self.base)

    def changes(self, name: str) -> Iterator[Change]:
        """The task's tensors that differ from the base's, one at a time.

        Raises:
            TaskNotFoundError: There is no such task.
            FormatError: A section of the task is damaged.
        """
        reader = self._container.task_reader(name)
        yield from self._one_by_one(reader, tuple(reader))

    def changes_at_once(self, name: str) -> list[Change]:
        """The same in the form that is quickest to put in place, for who holds them all anyway.

        Raises:
            TaskNotFoundError: There is no such task.
            FormatError: A section of the task is damaged.
        """
        reader = self._container.task_reader(name)
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

    def unchanged(self, name: str, only: Collection[str] | None = None) -> Iterator[Change]:
        """The task's tensors that equal the base's, as changes without a patch.

        Args:
            name: The task.
            only: Names to restrict it to, as the task has them.
        """
        directory = self._container.directory(name)
        skipped = {*directory.absent, *(entry.base for entry in directory.tensors)}
        for index, tensor in enumerate(self._container.base.tensors):
            full = directory.prefix + tensor.name
            if index not in skipped and (only is None or full in only):
                yield Change(full, tensor.name, None)

    def materialize(self, name: str) -> dict[str, Tensor]:
        """All weights of a task, as its checkpoint would hold them, on the CPU.

        Raises:
            TaskNotFoundError: There is no such task.
            FormatError: A section of the task is damaged.
        """
        return dict(self.tensors(name))

    def tensors(self, name: str) -> Iterator[tuple[str, Tensor]]:
        """Like `materialize`, one tensor at a time; peak memory is one tensor and its change."""
        directory = self._container.directory(name)
        second = tied(directory)
        for change in chain(self.unchanged(name), self.changes(name)):
            tensor = self.resolve(change, directory)
            yield change.name, tensor
            for other in [other for other, first in second.items() if first == change.name]:
                yield other, tensor.clone()

    def specs(self, name: str) -> Iterator[TensorSpec]:
        """What `tensors` will give, in its order; reads no weights."""
        directory = self._container.directory(name)
        second = tied(directory)
        known = {tensor.name: tensor for tensor in self._container.base.tensors}
        held = [
            TensorSpec(change.name, _dtype_in(directory, base.dtype), base.shape)
            for change in self.unchanged(name)
            if (base := known[str(change.base)])
        ]
        held += [TensorSpec(entry.name, entry.dtype, entry.shape) for entry in directory.tensors]
        for spec in held:
            yield spec
            for other in [other for other, first in second.items() if first == spec.name]:
                yield replace(spec, name=other)

    def base_tensor(self, name: str, directory: TaskDirectory) -> Tensor:
        """A base tensor in the dtype that the task works in (a tensor of its own)."""
        tensor = self.base.tensor(name)
        return tensor.to(DTYPES[_dtype_in(directory, self.base.dtype(name))])

    def resolve(self, change: Change, directory: TaskDirectory) -> Tensor:
        """The task's values of one tensor, computed on the CPU."""
        if change.base is None:
            if not isinstance(change.patch, Replace):
                raise TypeError(f"tensor {change.name!r} is new but does not replace")
            return change.patch.values
        tensor = self.base_tensor(change.base, directory).clone()
        if change.patch is not None:
            apply_([(tensor, change.patch)])
        return tensor if change.rows is None else torch.cat([tensor, change.rows])

    def close(self) -> None:
        """Release the file."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<Store {str(self.path)!r} base={self.base_name} "
            f"tasks={len(self.tasks)} {self.nbytes} bytes>"
        )

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


def _dtype_in(directory: TaskDirectory, dtype: str) -> str:
    """The dtype in which a task has a base tensor of some dtype."""
    is_cast = directory.dtype is not None and DTYPES[dtype].is_floating_point
    return str(directory.dtype) if is_cast else dtype


def newest_root(path: Path) -> RootPointer:
    """Where the newest root index of a store is, and its checksum; reads only the root slots."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with located(path=path):
            return select_root(fd).pointer
    finally:
        os.close(fd)


class Files:
    """Attached files of a task, read when asked for."""

    def __init__(self, container: Container, refs: Mapping[str, FileRef], base: BaseSource) -> None:
        self._container = container
        self._base = base
        self.refs = dict(refs)

    def read(self, name: str) -> bytes | None:
        """Content of a file, or None if the task has none of that name.

        Raises:
            FormatError: The stored bytes are damaged.
            MissingFileError: It is stored against a base file that is no longer the same.
        """
        ref = self.refs.get(name)
        if ref is None:
            return None
        return self._container.file(ref, base_file=self._from_base)

    def write_to(self, directory: Path) -> None:
        """Write all files below a directory."""
        for name in self.refs:
            target = directory / name
            if not target.resolve().is_relative_to(directory.resolve()):
                raise ValueError(f"attached file {name!r} would lie outside {directory}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read(name) or b"")

    def _from_base(self, ref: FileRef) -> bytes:
        names = [name for name, known in self._container.base.files.items() if known == ref]
        return self._base.files()[names[0]].read_bytes() if names else b""
