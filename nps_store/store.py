"""A store as its users see it: tasks by name, their weights, their files.

Reading takes no lock. A `Store` shows one generation until `refresh` is called.
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from formats.container import Container
from formats.errors import NpsError, located
from formats.roots import select_root
from nps_store.checkpoint import DTYPES
from nps_store.contents import Change, Content, StoredContent
from nps_store.identity import find_base
from nps_store.recipes import Catalog, Recipe
from nps_store.shards import TensorSpec
from nps_store.switch import Replace, apply_
from nps_store.task import Task, tied
from nps_store.virtual_content import VirtualContent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from formats.attachments import FileRef
    from formats.base import BaseTensor
    from formats.directory import TaskDirectory
    from formats.layout import RootPointer
    from nps_store.sources import BaseSource


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
        """Names of the tasks, sorted; virtual ones, that recipes make of others, among them."""
        return tuple(sorted({*self._container.root.tasks, *self._catalog.names}))

    @property
    def recipes(self) -> Mapping[str, Recipe]:
        """By name; one that is damaged raises RecipeError when asked for."""
        return self._catalog.recipes

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
        known = self._container.root.tasks
        if name in known:
            return known[name].content_hash
        if name not in self._catalog.names:
            return None
        try:
            return self._content(name).content_hash
        except NpsError:  # whoever reads it learns why
            return f"unreadable at generation {self.generation}"

    def task(self, name: str) -> Task:
        """Everything about a task but its weights.

        Raises:
            TaskNotFoundError: There is no such task.
        """
        content = self._content(name)
        return Task(
            content.directory,
            self._container.base.tensors,
            Files(self._container, content.directory.files, self.base),
            content_hash=content.content_hash,
            nbytes=content.nbytes,
        )

    def files(self, name: str) -> Files:
        """The task's attached files.

        Raises:
            TaskNotFoundError: There is no such task.
        """
        return Files(self._container, self._content(name).directory.files, self.base)

    def changes(self, name: str) -> Iterator[Change]:
        """The task's tensors that differ from the base's, one at a time.

        Raises:
            TaskNotFoundError: There is no such task.
            FormatError: A section of the task is damaged.
        """
        yield from self._content(name).changes()

    def changes_at_once(self, name: str) -> list[Change]:
        """The same in the form that is quickest to put in place, for who holds them all anyway.

        Raises:
            TaskNotFoundError: There is no such task.
            FormatError: A section of the task is damaged.
        """
        return self._content(name).changes_at_once()

    def unchanged(self, name: str, only: Collection[str] | None = None) -> Iterator[Change]:
        """The task's tensors that equal the base's, as changes without a patch.

        Args:
            name: The task.
            only: Names to restrict it to, as the task has them.
        """
        content = self._content(name)
        directory, skipped = content.directory, content.derived()
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
        directory = self._content(name).directory
        second = tied(directory)
        for change in chain(self.unchanged(name), self.changes(name)):
            tensor = self.resolve(change, directory)
            yield change.name, tensor
            for other in [other for other, first in second.items() if first == change.name]:
                yield other, tensor.clone()

    def specs(self, name: str) -> Iterator[TensorSpec]:
        """What `tensors` will give, in its order; reads no weights."""
        content = self._content(name)
        directory, second = content.directory, tied(content.directory)
        known = {tensor.name: tensor for tensor in self._container.base.tensors}
        held = [
            TensorSpec(change.name, _dtype_in(directory, base.dtype), base.shape)
            for change in self.unchanged(name)
            if (base := known[str(change.base)])
        ]
        for spec in (*held, *content.specs()):
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

    def _repr_html_(self) -> str:
        """A table of the tasks, for notebooks."""
        from nps_store.notebook import store_html

        return store_html(self)

    def _content(self, name: str) -> Content:
        virtual = None if name in self._container.root.tasks else self._catalog.find(name)
        if virtual is None:
            return StoredContent(self._container, name)
        return VirtualContent(self._container, virtual, self.base)

    @property
    def _catalog(self) -> Catalog:
        root = self._container.root
        return Catalog(root.recipes, root.tasks)


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
