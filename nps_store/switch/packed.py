"""The sparse changes of a task to the tensors of a group, where a loop can reach them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nps_store.switch.run import COLUMNS, IS_DENSE, OLD, PLACES, aligned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nps_store.switch.run import SparseRun
    from nps_store.switch.targets import Group

DENSE_FROM = 0.04
"""Kept fraction from which a tensor is restored from a copy of the base rather than from a log of
what was overwritten: about where the log's scattered writes take as long as a copy."""


@dataclass(frozen=True, eq=False)
class Packed:
    """Changes of some tensors of a group.

    Attributes:
        group: The tensors.
        table: int64 [n_tensors, COLUMNS], where in the data each tensor's changes are.
        data: uint8 [n].
        n_logged: Entries of all tensors that are restored from a log.
        n_entries: Entries of all tensors.
        dense: Numbers of the tensors that are restored from a copy.
    """

    group: Group
    table: Tensor
    data: Tensor
    n_logged: int
    n_entries: int
    dense: tuple[int, ...]

    @classmethod
    def of(cls, group: Group, runs: Sequence[tuple[Sequence[int], SparseRun]]) -> Packed:
        """Of (numbers of the tensors, changes of each of them) pairs, moved to where they lie."""
        table = np.zeros((len(group.tensors), COLUMNS), np.int64)
        n_logged = n_entries = end = 0
        dense: list[int] = []
        firsts = []
        for numbers, run in runs:
            is_dense = run.n_entries >= DENSE_FROM * run.numels
            logged = np.where(is_dense, 0, run.n_entries)
            rows = run.table.copy()
            firsts.append(aligned(end))
            rows[:, PLACES] += firsts[-1]
            rows[:, OLD] = n_logged + np.cumsum(logged) - logged
            rows[:, IS_DENSE] = is_dense
            table[numbers] = rows
            dense += np.asarray(numbers)[is_dense].tolist()
            end = firsts[-1] + run.data.nbytes
            n_logged += int(logged.sum())
            n_entries += int(run.n_entries.sum())
        if len(runs) == 1:
            ((_, only),) = runs
            data = only.data
        else:
            data = torch.empty(end, dtype=torch.uint8)
            for first, (_, run) in zip(firsts, runs, strict=True):
                data[first : first + run.data.nbytes] = run.data
        device = group.device
        placed = torch.from_numpy(table).to(device)
        return cls(group, placed, data.to(device), n_logged, n_entries, tuple(dense))

    @classmethod
    def empty(cls, group: Group) -> Packed:
        """No change of any tensor."""
        return cls.of(group, ())

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return self.table.nbytes + self.data.nbytes

    def pinned(self) -> Packed:
        """The same in pinned host memory, from where `resident` is fastest; not for loops."""
        table, data = (each.cpu().pin_memory() for each in (self.table, self.data))
        return replace(self, table=table, data=data)

    def resident(self) -> Packed:
        """The same where the tensors lie; the copies are under way when this returns."""
        device = self.group.device
        table, data = (each.to(device, non_blocking=True) for each in (self.table, self.data))
        return replace(self, table=table, data=data)
