"""A task's changes made ready to be put in place often, by the fastest exact path there is."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nps_store.switch import kernel
from nps_store.switch.resident import SparseDelta, n_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from nps_store.switch.patch import Patch

    Pair = tuple[Tensor, Patch]

MIN_ENTRIES = 1 << 14
"""Below that torch needs a millisecond, and loading the compiler would take seconds."""

DENSE_FROM = 0.04
"""Kept fraction from which a tensor is restored from a copy of the base rather than from a log of
what was overwritten: about where the log's scattered writes take as long as a copy."""

_PRISTINE = -1
"""In a table: the tensor is to be restored from a copy, whose address is known later."""

_ONE_AT_A_TIME = threading.Lock()
"""Some of numba's thread pools end the process when two threads enter them."""


class Plan:
    """(tensor, patch) pairs; those that the compiled loop can take, as tables for it.

    The tensors must stay where they are while the plan is in use.

    Attributes:
        pairs: All of them.
        compiled: Those for the compiled loop, by dtype.
        rest: Those for torch.
    """

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.pairs = tuple(pairs)
        taken: dict[torch.dtype, list[tuple[Tensor, SparseDelta]]] = {}
        rest: list[Pair] = []
        for tensor, patch in self.pairs:
            if isinstance(patch, SparseDelta) and _is_suitable(tensor, patch):
                taken.setdefault(tensor.dtype, []).append((tensor, patch))
            else:
                rest.append((tensor, patch))
        few = sum(len(patch.where) for group in taken.values() for _, patch in group) < MIN_ENTRIES
        if few or not kernel.is_available():
            self.compiled, self.rest = {}, self.pairs
        else:
            self.compiled = {dtype: Table.of(dtype, group) for dtype, group in taken.items()}
            self.rest = tuple(rest)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        tables = sum(table.nbytes for table in self.compiled.values())
        return sum(patch.nbytes for _, patch in self.pairs) + tables


@dataclass(frozen=True, eq=False)
class Table:
    """Tensors of one dtype and their sparse changes, as `kernel` reads them.

    Attributes:
        dtype: Of the weights.
        rows: int64 [n_tensors, kernel.COLUMNS].
        n_entries: Of all tensors that are restored from a log.
        held: What the addresses point to.
    """

    dtype: torch.dtype
    rows: NDArray[np.int64]
    n_entries: int
    held: tuple[tuple[Tensor, SparseDelta], ...] = field(repr=False)

    @classmethod
    def of(cls, dtype: torch.dtype, pairs: Iterable[tuple[Tensor, SparseDelta]]) -> Table:
        """The table of some pairs, by address; compiles the loop for their dtype."""
        held = tuple(sorted(pairs, key=lambda pair: pair[0].data_ptr()))
        rows = np.empty((len(held), kernel.COLUMNS), np.int64)
        n_entries = 0
        for row, (tensor, patch) in zip(rows, held, strict=True):
            row[kernel.WEIGHTS] = tensor.data_ptr()
            row[kernel.NUMEL] = tensor.numel()
            row[kernel.BLOCKS] = n_blocks(tensor.numel())
            row[kernel.OFFSETS] = patch.where.offsets.data_ptr()
            row[kernel.STARTS] = patch.where.starts.data_ptr()
            row[kernel.AMOUNTS] = patch.amounts.data_ptr()
            row[kernel.KIND] = kernel.KINDS[patch.amounts.dtype]
            row[kernel.SCALES] = patch.scales.data_ptr()
            row[kernel.N_SCALES] = patch.scales.numel()
            row[kernel.ROW] = max(1, patch.where.numel // patch.scales.numel())
            row[kernel.OLD] = n_entries
            is_dense = len(patch.where) >= DENSE_FROM * tensor.numel()
            row[kernel.PRISTINE] = _PRISTINE if is_dense else 0
            n_entries += 0 if is_dense else len(patch.where)
        nothing = cls.empty(dtype)
        exchange_(Written(nothing), Written(nothing))  # compiles
        return cls(dtype, rows, n_entries, held)

    @classmethod
    def empty(cls, dtype: torch.dtype) -> Table:
        """The table of no tensors."""
        return cls(dtype, np.empty((0, kernel.COLUMNS), np.int64), 0, ())

    @property
    def nbytes(self) -> int:
        """Resident bytes of the table itself."""
        return self.rows.nbytes

    @property
    def dense(self) -> list[Tensor]:
        """Tensors that are restored from a copy."""
        flagged = self.rows[:, kernel.PRISTINE] == _PRISTINE
        return [pair[0] for pair, is_dense in zip(self.held, flagged, strict=True) if is_dense]


class PristineCopies:
    """The base's values of tensors that tasks change densely, copied once and kept."""

    def __init__(self) -> None:
        self._copies: dict[tuple[int, int], Tensor] = {}

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
        return self._copies[key]


class Written:
    """A table that is in place, or about to be, with the bits that were there before.

    Attributes:
        table: What was written.
        old: Raw bits [n_entries] of the weights before.
        is_done: bool [1], whether `table` is in place; set by the loop itself.
    """

    def __init__(self, table: Table, copies: PristineCopies | None = None) -> None:
        """Of a table; copies must hold all of its dense tensors."""
        self.table = table
        self.rows = table.rows
        self.held = [copies.of(tensor) for tensor in table.dense] if copies else []
        if self.held:
            self.rows = table.rows.copy()
            flagged = self.rows[:, kernel.PRISTINE] == _PRISTINE
            self.rows[flagged, kernel.PRISTINE] = [copy.data_ptr() for copy in self.held]
        self.old = torch.empty(table.n_entries, dtype=kernel.BITS[table.dtype])
        self.is_done = np.zeros(1, np.bool_)

    @property
    def nbytes(self) -> int:
        """Bytes held to undo it."""
        return self.old.nbytes

    def revert_(self) -> None:
        """Write the old bits back."""
        exchange_(self, Written(Table.empty(self.table.dtype)))


def exchange_(out: Written, new: Written) -> None:
    """Take `out` out, if it is in place, and put `new` in, in one pass; their dtypes are equal."""
    a, b = out.table, new.table
    places = np.union1d(a.rows[:, kernel.WEIGHTS], b.rows[:, kernel.WEIGHTS])
    pairs = np.full((places.size, 2), -1, np.int64)
    blocks = np.zeros(places.size, np.int64)
    for side, table in enumerate((a, b)):
        at = np.searchsorted(places, table.rows[:, kernel.WEIGHTS])
        pairs[at, side] = np.arange(at.size)
        blocks[at] = np.maximum(blocks[at], table.rows[:, kernel.BLOCKS])
    first_block = np.cumsum(blocks) - blocks
    tensor_of = np.repeat(np.arange(places.size), blocks)
    with _ONE_AT_A_TIME:
        kernel.share_threads()
        kernel.loop(a.dtype)(
            pairs, first_block, tensor_of,
            out.rows, _raw(out.old), out.is_done, new.rows, _raw(new.old), new.is_done,
        )  # fmt: skip


def _raw(old: Tensor) -> NDArray[Any]:
    return old.numpy().view(f"<u{old.element_size()}")


def _is_suitable(tensor: Tensor, patch: SparseDelta) -> bool:
    """Whether the compiled loop can take the pair; refuses what no path can."""
    if tensor.numel() != patch.where.numel:
        raise ValueError(f"patch of {patch.where.numel} elements for {tensor.numel()}")
    return (
        tensor.device.type == "cpu"
        and tensor.dtype in kernel.BITS
        and tensor.is_contiguous()
        and len(patch.where) > 0
        and len(patch.where.starts) == n_blocks(tensor.numel()) + 1
    )
