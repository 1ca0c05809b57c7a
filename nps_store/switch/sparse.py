"""The resident form of a sparse task: what is held of it while it waits to be switched to.

Positions are 16-bit offsets in blocks of 65,536 elements and changes are sign bits wherever all
levels are of size one: 2.1 bytes an entry, where an int64 index and a float32 delta take twelve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nps_store.switch.patch import add_rounded

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 1 << 16


@dataclass(frozen=True, eq=False)
class BlockIndex:
    """Strictly increasing positions in a flat tensor, by blocks of 65,536 elements.

    Attributes:
        numel: Elements of the tensor.
        offsets: int16 [n], the bits of unsigned offsets within the blocks.
        starts: int64 [n_blocks + 1], first entry of each block, and n.
    """

    numel: int
    offsets: Tensor
    starts: Tensor

    @classmethod
    def of(cls, positions: np.ndarray[tuple[int], np.dtype[np.int64]], numel: int) -> BlockIndex:
        """The index of int64 [n] positions, which must increase and lie in the tensor."""
        edges = np.arange(n_blocks(numel) + 1, dtype=np.int64) * BLOCK
        starts = np.searchsorted(positions, edges)
        offsets = positions.astype(np.uint16).view(np.int16)  # modulo 65,536
        return cls(numel, torch.from_numpy(offsets), torch.from_numpy(starts))

    def __len__(self) -> int:
        """Number of positions."""
        return self.offsets.numel()

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return self.offsets.nbytes + self.starts.nbytes

    def positions(self) -> Tensor:
        """int64 [n], on the device where the index lies; computed anew at each call."""
        first = torch.arange(len(self.starts) - 1, device=self.starts.device) * BLOCK
        blocks = first.repeat_interleave(self.starts.diff(), output_size=len(self))
        return blocks.add_(self.offsets.to(torch.int64).bitwise_and_(BLOCK - 1))

    def to(self, device: torch.device | str) -> BlockIndex:
        """The same index on `device`."""
        return BlockIndex(self.numel, self.offsets.to(device), self.starts.to(device))


@dataclass(frozen=True, eq=False)
class SparseDelta:
    """Sparse delta: `round_to_dtype(float32(old) + amount * scale)` at the positions of an index.

    Attributes:
        where: The positions.
        amounts: Sign bits, eight a byte, lowest first, 1 = negative (uint8 [ceil(n / 8)]);
            or levels (int8 [n]); or values (bfloat16 or float32 [n]).
        scales: float32 [1] or [rows], where rows divides the number of elements.
    """

    where: BlockIndex
    amounts: Tensor
    scales: Tensor

    @classmethod
    def of_levels(
        cls,
        where: BlockIndex,
        levels: np.ndarray[tuple[int], np.dtype[np.int8]],
        scales: np.ndarray[tuple[int], np.dtype[np.float32]],
    ) -> SparseDelta:
        """Of integer levels [n], as sign bits if they are all of size one."""
        if np.all(np.abs(levels) == 1):
            amounts = torch.from_numpy(np.packbits(levels < 0, bitorder="little"))
        else:
            amounts = torch.from_numpy(levels.copy())
        return cls(where, amounts, torch.from_numpy(scales.copy()))

    @classmethod
    def of_values(cls, where: BlockIndex, values: Tensor) -> SparseDelta:
        """Of values [n] in any floating dtype; they count as float32."""
        exact = values if values.dtype == torch.bfloat16 else values.to(torch.float32)
        return cls(where, exact, torch.ones(1, device=exact.device))

    @property
    def numel(self) -> int:
        """Elements of the tensor."""
        return self.where.numel

    @property
    def n_entries(self) -> int:
        """Number of positions."""
        return len(self.where)

    @property
    def index(self) -> Tensor:
        """int64 [n], computed anew at each call."""
        return self.where.positions()

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return self.where.nbytes + self.amounts.nbytes + self.scales.nbytes

    def delta(self) -> Tensor:
        """float32 [n], computed anew at each call."""
        n = len(self.where)
        if self.amounts.dtype == torch.uint8:
            bit = torch.arange(8, dtype=torch.uint8, device=self.amounts.device)
            negative = (self.amounts[:, None] >> bit & 1).reshape(-1)[:n]
            amounts = 1 - 2 * negative.to(torch.float32)
        else:
            amounts = self.amounts.to(torch.float32)
        if self.scales.numel() == 1:
            return amounts * self.scales
        row = self.where.positions() // max(1, self.where.numel // self.scales.numel())
        return amounts * self.scales[row]

    def new_values(self, old: Tensor) -> Tensor:
        """The sum, computed in float32 and rounded once to `old`'s dtype."""
        return add_rounded(old, self.delta())

    def added(self, base: Callable[[], Tensor]) -> Tensor:  # noqa: ARG002 (other patches need it)
        """The delta."""
        return self.delta()

    def to(self, device: torch.device | str) -> SparseDelta:
        """The same patch on `device`."""
        return SparseDelta(self.where.to(device), self.amounts.to(device), self.scales.to(device))


def n_blocks(numel: int) -> int:
    """Blocks of a tensor; the last may be short."""
    return -(-numel // BLOCK)
