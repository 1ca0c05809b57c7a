"""What adapters change: a product of two thin matrices is added, or rows or columns are scaled.

The operations are those of peft's `merge_and_unload`, in its order, so that on one machine the
result in float32 is the same bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nps_store.switch.patch import add_rounded, difference

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, eq=False)
class AddProduct:
    """Adds `scale * left @ right`, or its transpose, in float32; rounded once.

    Attributes:
        left: [m, rank], floating.
        right: [rank, n].
        scale: Of the product.
        transposed: Whether the tensor is [n, m], not [m, n].
    """

    left: Tensor
    right: Tensor
    scale: float
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the tensor."""
        n_left, n_right = len(self.left), self.right.shape[1]
        return (n_right, n_left) if self.transposed else (n_left, n_right)

    @property
    def index(self) -> None:
        """Every position."""
        return

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return self.left.nbytes + self.right.nbytes

    def new_values(self, old: Tensor) -> Tensor:
        """The sum, computed in float32 and rounded once to `old`'s dtype."""
        return add_rounded(old, self.added(lambda: old))

    def added(self, base: Callable[[], Tensor]) -> Tensor:  # noqa: ARG002 (other patches need it)
        """The scaled product, flat."""
        product = self.left.float() @ self.right.float()
        return ((product.T if self.transposed else product) * self.scale).reshape(-1)

    def to(self, device: torch.device | str) -> AddProduct:
        """The same patch on `device`."""
        left, right = self.left.to(device), self.right.to(device)
        return AddProduct(left, right, self.scale, self.transposed)

    def part(self, rows: Tensor, columns: Tensor) -> AddProduct:
        """The change of some rows and columns, int64 each, as a tensor of their own."""
        of_left, of_right = (columns, rows) if self.transposed else (rows, columns)
        left, right = self.left[of_left], self.right[:, of_right]
        return AddProduct(left, right, self.scale, self.transposed)


@dataclass(frozen=True, eq=False)
class Multiply:
    """Multiplies every row, or every column, by a factor of its own, in float32; rounded once.

    Attributes:
        factors: [n], floating.
        shape: Rows and columns of the tensor.
        by_row: Whether the factors are the rows'.
    """

    factors: Tensor
    shape: tuple[int, int]
    by_row: bool

    @property
    def index(self) -> None:
        """Every position."""
        return

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return self.factors.nbytes

    def new_values(self, old: Tensor) -> Tensor:
        """The products, flat.

        Raises:
            ValueError: The factors are for another number of elements.
        """
        if math.prod(self.shape) != old.numel():
            raise ValueError(f"factors of {self.shape} elements for {old.numel()}")
        wide = torch.float64 if old.dtype == torch.float64 else torch.float32
        factors = self.factors.to(wide)
        rows = old.view(self.shape).to(wide)
        return (rows * (factors[:, None] if self.by_row else factors)).to(old.dtype).reshape(-1)

    def added(self, base: Callable[[], Tensor]) -> Tensor:
        """The difference to the base."""
        return difference(self, base())

    def to(self, device: torch.device | str) -> Multiply:
        """The same patch on `device`."""
        return Multiply(self.factors.to(device), self.shape, self.by_row)

    def part(self, rows: Tensor, columns: Tensor) -> Multiply:
        """The change of some rows and columns, int64 each, as a tensor of their own."""
        factors = self.factors[rows if self.by_row else columns]
        return Multiply(factors, (len(rows), len(columns)), self.by_row)
