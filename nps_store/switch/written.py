"""What a loop wrote, and how to take it out again."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nps_store.switch import cpu_loop, gpu_loop
from nps_store.switch.packed import Packed
from nps_store.switch.targets import BITS

if TYPE_CHECKING:
    from types import ModuleType

    from nps_store.switch.targets import Group, Targets

_PASSES = itertools.count(1)


class PristineCopies:
    """The base's values of tensors that tasks change densely, copied once and kept."""

    def __init__(self) -> None:
        self._copies: dict[tuple[int, int], Tensor] = {}
        self._tables: dict[Group, Tensor] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all copies."""
        return sum(copy.nbytes for copy in self._copies.values())

    def has(self, tensor: Tensor) -> bool:
        """Whether there is a copy of a tensor."""
        return (tensor.data_ptr(), tensor.numel()) in self._copies

    def of(self, tensor: Tensor) -> Tensor:
        """The copy of a tensor, flat; one that there is none of must hold the base's values."""
        key = tensor.data_ptr(), tensor.numel()
        if key not in self._copies:
            self._copies[key] = tensor.reshape(-1).clone()
            self._tables.clear()
        return self._copies[key]

    def has_all(self, packed: Packed) -> bool:
        """Whether there is a copy of every tensor that is restored from one."""
        return all(self.has(packed.group.tensors[number]) for number in packed.dense)

    def add_all(self, packed: Packed) -> None:
        """Make the copies that are lacking; these tensors must hold the base's values."""
        for number in packed.dense:
            self.of(packed.group.tensors[number])

    def table(self, group: Group) -> Tensor:
        """int64 [n_tensors] on the device: where each tensor's copy is, 0 if there is none."""
        if group not in self._tables:
            copies = [self._copies.get((t.data_ptr(), t.numel())) for t in group.tensors]
            places = [0 if copy is None else copy.data_ptr() for copy in copies]
            self._tables[group] = torch.tensor(places, device=group.device)
        return self._tables[group]


class Written:
    """Packed changes that are in place, or about to be, with the bits that were there before.

    Attributes:
        packed: What was written.
        copies: Of the base's values, of every tensor that is restored from one.
        old: Raw bits [n_logged] of the weights before, where they lie.
        passes: int64 [2], the number of the pass that wrote it, and of the one that took it out; 0
            if there was none. Set by the passes themselves: no interrupt falls between the writing
            and the saying.
    """

    def __init__(self, packed: Packed, copies: PristineCopies) -> None:
        """Of changes about to be written; the tensors that lack a copy must hold the base's."""
        group = packed.group
        copies.add_all(packed)
        self.packed = packed
        self.copies = copies
        self.old = torch.empty(packed.n_logged, dtype=BITS[group.dtype], device=group.device)
        self.passes = torch.zeros(2, dtype=torch.int64, device=group.device)

    @property
    def nbytes(self) -> int:
        """Bytes held to undo it."""
        return self.old.nbytes

    def revert_(self) -> None:
        """Write the old bits back, if it is in place."""
        exchange_(self, Written(Packed.empty(self.packed.group), self.copies))


def is_available(group: Group) -> bool:
    """Whether there is a loop for tensors that lie there."""
    available: bool = _loop(group).is_available()
    return available


def exchange_(out: Written, new: Written) -> None:
    """Take `out` out, if it is in place, and put `new` in, in one pass over their group."""
    _loop(new.packed.group).exchange_(out, new, next(_PASSES))


def warm_up(targets: Targets) -> None:
    """Compile the loops for a model, or load what was compiled before."""
    for group in targets.groups:
        if is_available(group):
            nothing, copies = Packed.empty(group), PristineCopies()
            exchange_(Written(nothing, copies), Written(nothing, copies))


def _loop(group: Group) -> ModuleType:
    return gpu_loop if group.device.type == "cuda" else cpu_loop
