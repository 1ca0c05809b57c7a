"""The sparse changes of a task as one run of bytes, which a loop reads where it lies.

One run, so that a task is moved to another device in one copy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nps_store.switch.sparse import n_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nps_store.switch.sparse import SparseDelta
    from nps_store.switch.targets import Group

COLUMNS = 10
BLOCKS, STARTS, OFFSETS, AMOUNTS, KIND = range(5)
SCALES, N_SCALES, ROW, OLD, IS_DENSE = range(5, COLUMNS)
"""Columns of the table, a row a tensor: the number of blocks (0: the tensor is left alone); where
in the run of bytes the first entry of each block, the offsets, the amounts and the scales are; the
kind of amounts; the number of scales and the elements to each; the tensor's first place among the
old bits; and whether it is restored from a copy of the base's values instead."""

KINDS = {torch.uint8: 0, torch.int8: 1, torch.bfloat16: 2, torch.float32: 3}

DENSE_FROM = 0.04
"""Kept fraction from which a tensor is restored from a copy of the base rather than from a log of
what was overwritten: about where the log's scattered writes take as long as a copy."""

_ALIGNMENT = 16


@dataclass(frozen=True, eq=False)
class Packed:
    """Changes of some tensors of a group.

    Attributes:
        group: The tensors.
        data: uint8 [n]: the table, int64 [n_tensors, COLUMNS], and what it points to.
        n_logged: Entries of all tensors that are restored from a log.
        n_entries: Entries of all tensors.
        dense: Numbers of the tensors that are restored from a copy.
    """

    group: Group
    data: Tensor
    n_logged: int
    n_entries: int
    dense: tuple[int, ...]

    @classmethod
    def of(cls, group: Group, patches: Iterable[tuple[int, SparseDelta]]) -> Packed:
        """Of (number of a tensor, its change) pairs, packed where the tensors lie."""
        table = torch.zeros(len(group.tensors), COLUMNS, dtype=torch.int64)
        parts: list[tuple[int, Tensor]] = [(0, table)]
        end, n_logged, n_entries, dense = table.nbytes, 0, 0, []

        def place(array: Tensor) -> int:
            nonlocal end
            start = -(-end // _ALIGNMENT) * _ALIGNMENT
            parts.append((start, array))
            end = start + array.nbytes
            return start

        for number, patch in patches:
            row, n = table[number], len(patch.where)
            row[BLOCKS] = n_blocks(patch.where.numel)
            row[STARTS] = place(patch.where.starts)
            row[OFFSETS] = place(patch.where.offsets)
            row[AMOUNTS] = place(patch.amounts)
            row[KIND] = KINDS[patch.amounts.dtype]
            row[SCALES] = place(patch.scales)
            row[N_SCALES] = patch.scales.numel()
            row[ROW] = max(1, patch.where.numel // patch.scales.numel())
            row[OLD] = n_logged
            n_entries += n
            if n >= DENSE_FROM * patch.where.numel:
                row[IS_DENSE] = 1
                dense.append(number)
            else:
                n_logged += n
        data = torch.zeros(end, dtype=torch.uint8)
        for start, array in parts:
            data[start : start + array.nbytes] = array.contiguous().view(-1).view(torch.uint8)
        return cls(group, data.to(group.device), n_logged, n_entries, tuple(dense))

    @classmethod
    def empty(cls, group: Group) -> Packed:
        """No change of any tensor."""
        return cls.of(group, ())

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return self.data.nbytes

    def pinned(self) -> Packed:
        """The same in pinned host memory, from where `resident` is fastest; not for loops."""
        return replace(self, data=self.data.cpu().pin_memory())

    def resident(self) -> Packed:
        """The same where the tensors lie; the copy is under way when this returns."""
        return replace(self, data=self.data.to(self.group.device, non_blocking=True))
