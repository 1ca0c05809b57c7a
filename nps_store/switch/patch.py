"""What a task changes in one tensor, as a function of the tensor's base values.

A patch computes new values and never writes: writing, and what undoes it, is `apply`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Patch(Protocol):
    """The change of one tensor of `numel` elements, seen flat in C order."""

    @property
    def index(self) -> Tensor | None:
        """int64 positions it touches, strictly increasing; None: every position."""

    @property
    def nbytes(self) -> int:
        """Resident bytes."""

    def new_values(self, old: Tensor) -> Tensor:
        """Values to write at `index`, in `old`'s dtype; `old` holds the base's values there.

        Raises:
            ValueError: The patch is for another number of elements.
        """

    def added(self, base: Callable[[], Tensor]) -> Tensor:
        """What it adds at `index`, float32.

        Args:
            base: Gives the base's values, flat; called where they are needed.
        """

    def to(self, device: torch.device | str) -> Patch:
        """The same patch with its arrays on `device`."""


@dataclass(frozen=True)
class AddAt:
    """Sparse delta: `round_to_dtype(float32(old) + delta)` at the positions `index`.

    Attributes:
        index: int64 [n].
        delta: float32 [n].
    """

    index: Tensor
    delta: Tensor

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return self.index.nbytes + self.delta.nbytes

    def new_values(self, old: Tensor) -> Tensor:
        """The sum, computed in float32 and rounded once to `old`'s dtype."""
        return add_rounded(old, self.delta)

    def added(self, base: Callable[[], Tensor]) -> Tensor:  # noqa: ARG002 (other patches need it)
        """The delta."""
        return self.delta

    def to(self, device: torch.device | str) -> AddAt:
        """The same patch on `device`."""
        return AddAt(self.index.to(device), self.delta.to(device))


@dataclass(frozen=True)
class AddAll:
    """Dense delta: integer levels [numel] times one scale, or one scale a row.

    Attributes:
        levels: int8 [numel].
        scales: float32 [1] or [rows], where rows divides numel.
    """

    levels: Tensor
    scales: Tensor

    @property
    def index(self) -> None:
        """Every position."""
        return

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return self.levels.nbytes + self.scales.nbytes

    def new_values(self, old: Tensor) -> Tensor:
        """The sum, computed in float32 and rounded once to `old`'s dtype."""
        return add_rounded(old, self.added(lambda: old))

    def added(self, base: Callable[[], Tensor]) -> Tensor:  # noqa: ARG002 (other patches need it)
        """Levels times scales."""
        rows = self.levels.reshape(self.scales.numel(), -1).to(torch.float32)
        return (rows * self.scales[:, None]).reshape(-1)

    def to(self, device: torch.device | str) -> AddAll:
        """The same patch on `device`."""
        return AddAll(self.levels.to(device), self.scales.to(device))


@dataclass(frozen=True)
class XorAll:
    """Lossless delta: the task's bits are the base's bits xor `bits` (an integer tensor)."""

    bits: Tensor

    @property
    def index(self) -> None:
        """Every position."""
        return

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return self.bits.nbytes

    def new_values(self, old: Tensor) -> Tensor:
        """The task's exact bits, in `old`'s dtype."""
        _check_size(self.bits, old)
        return (old.view(self.bits.dtype) ^ self.bits).view(old.dtype)

    def added(self, base: Callable[[], Tensor]) -> Tensor:
        """The difference to the base."""
        return difference(self, base())

    def to(self, device: torch.device | str) -> XorAll:
        """The same patch on `device`."""
        return XorAll(self.bits.to(device))


@dataclass(frozen=True)
class Replace:
    """The task's own values, whatever the base holds."""

    values: Tensor

    @property
    def index(self) -> None:
        """Every position."""
        return

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return self.values.nbytes

    def new_values(self, old: Tensor) -> Tensor:
        """The stored values, flat, in `old`'s dtype."""
        _check_size(self.values, old)
        return self.values.reshape(-1).to(old.dtype)

    def added(self, base: Callable[[], Tensor]) -> Tensor:
        """The difference to the base."""
        return difference(self, base())

    def to(self, device: torch.device | str) -> Replace:
        """The same patch on `device`."""
        return Replace(self.values.to(device))


def bits_dtype(itemsize: int) -> torch.dtype:
    """The integer dtype that views elements of `itemsize` bytes bit by bit."""
    return _BITS[itemsize]


def add_rounded(old: Tensor, delta: Tensor) -> Tensor:
    """`old + delta` in float32 (float64 where `old` is), rounded once to `old`'s dtype."""
    _check_size(delta, old)
    if old.dtype == torch.float64:
        return old + delta.to(torch.float64)
    return (old.to(torch.float32) + delta).to(old.dtype)


def difference(patch: Patch, old: Tensor) -> Tensor:
    """What a patch adds to the values `old`, float32."""
    return patch.new_values(old).to(torch.float32) - old.to(torch.float32)


def _check_size(given: Tensor, old: Tensor) -> None:
    """Torch would broadcast a single element."""
    if given.numel() != old.numel():
        raise ValueError(f"patch of {given.numel()} elements for {old.numel()}")
