"""What adapters change: a product of two thin matrices is added, or rows or columns are scaled.

The operations are those of peft's `merge_and_unload`, in its order, so that on one machine the
result in float32 is the same bit for bit.
"""

from __future__ import annotations

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


@dataclass(frozen=True, eq=False)
class Multiply:
    """Multiplies every row, or every column, by a factor of its own, in float32; rounded once.

    Attributes:
        factors: [n], floating.
        n_rows: Of the tensor.
        by_row: Whether the factors are the rows'.
    """

    factors: Tensor
    n_rows: int
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
        n_columns = old.numel() // max(self.n_rows, 1)
        expected = self.n_rows if self.by_row else n_columns
        if self.n_rows * n_columns != old.numel() or self.factors.numel() != expected:
            raise ValueError(f"{self.factors.numel()} factors for {old.numel()} elements")
        wide = torch.float64 if old.dtype == torch.float64 else torch.float32
        factors = self.factors.to(wide)
        rows = old.view(self.n_rows, n_columns).to(wide)
        return (rows * (factors[:, None] if self.by_row else factors)).to(old.dtype).reshape(-1)

    def added(self, base: Callable[[], Tensor]) -> Tensor:
        """The difference to the base."""
        return difference(self, base())

    def to(self, device: torch.device | str) -> Multiply:
        """The same patch on `device`."""
        return Multiply(self.factors.to(device), self.n_rows, self.by_row)
