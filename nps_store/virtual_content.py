"""What a virtual task has instead of the base's values: its recipe's members, combined."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import xxhash

from formats.canonical import dump
from nps_store.checkpoint import DTYPES
from nps_store.contents import Change, StoredContent
from nps_store.recipes import merged
from nps_store.recipes.members import check_alike
from nps_store.shards import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Set

    from torch import Tensor

    from formats.container import Container
    from nps_store.recipes import VirtualTask
    from nps_store.sources import BaseSource
    from nps_store.switch import Patch


class VirtualContent:
    """Of a task that a recipe makes; as `Content`.

    Head, files and names are those of the task that lends them, the body is the base's changed by
    all members.
    """

    def __init__(self, container: Container, task: VirtualTask, base: BaseSource) -> None:
        """Read the directories of the members.

        Raises:
            FormatError: One is damaged.
            UnsupportedTaskError: Members cannot be merged (says why).
        """
        self._recipe = task.recipe
        self._base = base
        self._tensors = container.base.tensors
        self._lender = StoredContent(container, task.head)
        self._members = {name: StoredContent(container, name) for name in task.recipe.members}
        lent = self._lender.directory
        meta = {
            "method": f"recipe: {task.recipe.rule}",
            "recipe": {"members": {k: list(v) for k, v in task.recipe.members.items()},
                       "params": dict(task.recipe.params)},
            **task.recipe.meta,
            **{key: lent.meta[key] for key in ("tied", "source") if key in lent.meta},
        }  # fmt: skip
        self.directory = replace(lent, name=task.name, meta=meta)
        members = {task.head: lent, **{k: each.directory for k, each in self._members.items()}}
        check_alike(task.name, members)  # one may have been replaced since

    @property
    def content_hash(self) -> str:
        """Over the recipe and its members' contents."""
        known = [member.content_hash for member in (self._lender, *self._members.values())]
        parts = [dump(self._recipe.to_json()), *map(str.encode, known)]
        return xxhash.xxh3_128_hexdigest(b"\0".join(parts))

    @property
    def nbytes(self) -> int:
        """Of the recipe."""
        return self._recipe.nbytes

    def derived(self) -> Set[int]:
        """What any member changes, and what the lender lacks."""
        return {*self._changed(), *self.directory.absent}

    def specs(self) -> Iterator[TensorSpec]:
        """The lender's new tensors, then the base's that are changed."""
        for entry in self._lender.directory.tensors:
            if entry.base is None:
                yield TensorSpec(entry.name, entry.dtype, entry.shape)
        for number in sorted(self._changed()):
            tensor = self._tensors[number]
            floating = DTYPES[tensor.dtype].is_floating_point
            dtype = self.directory.dtype if floating else None
            yield TensorSpec(self._name_of(number), dtype or tensor.dtype, tensor.shape)

    def changes(self) -> Iterator[Change]:
        """The members' changes are held in the form of prepared tasks; one tensor of them at a
        time is combined."""
        yield from (change for change in self._lender.changes() if change.base is None)
        changed = self._changed()
        numels = {tensor.name: math.prod(tensor.shape) for tensor in self._tensors}
        number_of = {tensor.name: number for number, tensor in enumerate(self._tensors)}
        patches = {name: self._patches(name) for name in self._members}
        for name, patch in merged(self._recipe, patches, numels, self._values):
            if number_of[name] in changed:
                yield Change(self._name_of(number_of[name]), name, patch)

    def changes_at_once(self) -> list[Change]:
        """As `changes`."""
        return [*self.changes()]

    def _patches(self, member: str) -> dict[str, Patch]:
        return {
            change.base: change.patch
            for change in self._members[member].changes_at_once()
            if change.base is not None and change.patch is not None
        }

    def _changed(self) -> set[int]:
        members = (member.directory.tensors.bases for member in self._members.values())
        changed = {base for bases in members for base in bases if base is not None}
        return changed - {*self.directory.absent}

    def _name_of(self, number: int) -> str:
        return self.directory.prefix + self._tensors[number].name

    def _values(self, name: str) -> Tensor:
        tensor = self._base.tensor(name).reshape(-1)
        dtype = self.directory.dtype
        return tensor.to(DTYPES[dtype]) if dtype and tensor.is_floating_point() else tensor
