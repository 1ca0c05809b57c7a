"""Sparse changes of many tensors in one run of bytes, which a loop reads where they lie.

One run, so that a task goes from the file to a device without a step for each of its tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nps_store.switch.sparse import BlockIndex, SparseDelta, n_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

COLUMNS = 10
BLOCKS, STARTS, OFFSETS, AMOUNTS, KIND = range(5)
SCALES, N_SCALES, ROW, OLD, IS_DENSE = range(5, COLUMNS)
"""Columns of tables, a row a tensor: the number of blocks (0: the tensor is left alone); where in
the run of bytes the first entry of each block, the offsets, the amounts and the scales are; the
kind of amounts; the number of scales and the elements to each; the tensor's first place among the
old bits; and whether it is restored from a copy of the base's values instead."""

PLACES = (STARTS, OFFSETS, AMOUNTS, SCALES)
KINDS = {torch.uint8: 0, torch.int8: 1, torch.bfloat16: 2, torch.float32: 3}

ALIGNMENT = 16


@dataclass(frozen=True, eq=False)
class SparseRun:
    """Sparse deltas of some tensors.

    Attributes:
        data: uint8 [n_bytes], all their arrays.
        table: int64 [n, COLUMNS], a row a tensor; the last two columns are left to others.
        numels: int64 [n], elements of the tensors.
        n_entries: int64 [n], positions in each.
    """

    data: Tensor
    table: NDArray[np.int64]
    numels: NDArray[np.int64]
    n_entries: NDArray[np.int64]

    @classmethod
    def of(cls, deltas: Sequence[SparseDelta]) -> SparseRun:
        """Of deltas whose arrays lie apart."""
        table = np.zeros((len(deltas), COLUMNS), np.int64)
        parts: list[tuple[int, Tensor]] = []
        end = 0

        def place(array: Tensor) -> int:
            nonlocal end
            start = aligned(end)
            parts.append((start, array))
            end = start + array.nbytes
            return start

        for row, delta in zip(table, deltas, strict=True):
            where, n_scales = delta.where, delta.scales.numel()
            row[BLOCKS] = n_blocks(where.numel)
            row[STARTS] = place(where.starts)
            row[OFFSETS] = place(where.offsets)
            row[AMOUNTS] = place(delta.amounts)
            row[KIND] = KINDS[delta.amounts.dtype]
            row[SCALES] = place(delta.scales)
            row[N_SCALES], row[ROW] = n_scales, max(1, where.numel // n_scales)
        data = torch.zeros(end, dtype=torch.uint8)
        for start, array in parts:
            data[start : start + array.nbytes] = array.contiguous().view(-1).view(torch.uint8)
        numels = np.array([delta.where.numel for delta in deltas], np.int64)
        n_entries = np.array([len(delta.where) for delta in deltas], np.int64)
        return cls(data, table, numels, n_entries)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self.table)

    def __iter__(self) -> Iterator[RunDelta]:
        """The deltas as patches."""
        columns = enumerate(self.numels.tolist()), self.n_entries.tolist()
        return (RunDelta(self, i, numel, n) for (i, numel), n in zip(*columns, strict=True))

    def delta(self, number: int) -> SparseDelta:
        """The delta of one tensor; its arrays are views."""
        row, numel, n = self.table[number], int(self.numels[number]), int(self.n_entries[number])
        (dtype,) = (dtype for dtype, kind in KINDS.items() if kind == row[KIND])
        n_amounts = -(-n // 8) if dtype == torch.uint8 else n
        return SparseDelta(
            BlockIndex(
                numel,
                self._view(row[OFFSETS], n, torch.int16),
                self._view(row[STARTS], row[BLOCKS] + 1, torch.int64),
            ),
            self._view(row[AMOUNTS], n_amounts, dtype),
            self._view(row[SCALES], row[N_SCALES], torch.float32),
        )

    def _view(self, start: int, n: int, dtype: torch.dtype) -> Tensor:
        return self.data[start : start + n * dtype.itemsize].view(dtype)


@dataclass(frozen=True, eq=False, slots=True)
class RunDelta:
    """One sparse delta of a run, as a patch.

    Attributes:
        run: The run.
        number: The delta's place in it.
        numel: Elements of the tensor.
        n_entries: Number of positions.
    """

    run: SparseRun
    number: int
    numel: int
    n_entries: int

    @property
    def index(self) -> Tensor:
        """int64 [n], computed anew at each call."""
        return self.run.delta(self.number).index

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return self.run.delta(self.number).nbytes

    def new_values(self, old: Tensor) -> Tensor:
        """The sum, computed in float32 and rounded once to `old`'s dtype."""
        return self.run.delta(self.number).new_values(old)

    def added(self, base: Callable[[], Tensor]) -> Tensor:  # noqa: ARG002 (other patches need it)
        """The delta."""
        return self.run.delta(self.number).delta()

    def to(self, device: torch.device | str) -> SparseDelta:
        """The same patch on `device`."""
        return self.run.delta(self.number).to(device)


def aligned(position: int) -> int:
    """The first place at or behind a position where an array may begin."""
    return -(-position // ALIGNMENT) * ALIGNMENT
