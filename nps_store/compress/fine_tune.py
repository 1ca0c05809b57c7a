"""A fine-tune beside its base: which tensors differ, and by what."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nps_store.adapters import AdapterCheckpoint
from nps_store.alignment import Alignment, align
from nps_store.checkpoint import DTYPES, is_finite, weights_hash
from nps_store.contents import Change
from nps_store.errors import NonFiniteWeightError, ShapeMismatchError, UnrelatedModelError
from nps_store.modeling.ties import Ties
from nps_store.sources import BaseSource, has_head
from nps_store.switch import Replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from formats.records import Factors
    from nps_store.adapters import FineTuneSource


class FineTune:
    """One fine-tune aligned with its base.

    Attributes:
        name: Of the task.
        checkpoint: Its directory, with a whole model or an adapter of the base.
        base: What it is a fine-tune of.
        ties: Which of its names are one tensor.
        alignment: Which tensor is which; a tied tensor is one.
    """

    def __init__(
        self, name: str, checkpoint: FineTuneSource, base: BaseSource, *, dtype: str | None = None
    ) -> None:
        """Align and check names and shapes; of the weights, only tied ones are read.

        Args:
            name: Of the task.
            checkpoint: Its directory.
            base: What it is a fine-tune of.
            dtype: Floating dtype to work in, where it is not the base's.

        Raises:
            UnrelatedModelError: It is no fine-tune of this base.
            ShapeMismatchError: A body tensor has another shape.
            NonFiniteWeightError: A tensor that has two names holds NaN or Inf.
        """
        self.name = name
        self.checkpoint = checkpoint
        self.base = base
        self.dtype = dtype
        self.ties = Ties.of(checkpoint)
        try:
            self.alignment: Alignment = align(
                base,
                checkpoint,
                base_has_head=has_head(base.config),
                tied=self.ties.groups,
                second=self.ties.second,
            )
        except (UnrelatedModelError, ShapeMismatchError) as error:
            raise type(error)(f"{checkpoint.path}: {error}") from error

    @property
    def adapter(self) -> AdapterCheckpoint | None:
        """Its directory, if it is an adapter; that is stored as it is."""
        return self.checkpoint if isinstance(self.checkpoint, AdapterCheckpoint) else None

    @property
    def factors(self) -> Mapping[str, Factors]:
        """What an adapter has for tensors of the base, by their names there."""
        return {} if self.adapter is None else self.adapter.factors

    def work_dtype(self, base_name: str) -> str:
        """Dtype in which a tensor of the base is stored for this task."""
        own = self.base.dtype(base_name)
        return self.dtype if self.dtype and DTYPES[own].is_floating_point else own

    def base_tensor(self, base_name: str) -> Tensor:
        """A base tensor in the dtype the task works in.

        Raises:
            NonFiniteWeightError: It holds NaN or Inf, or would in that dtype.
        """
        return _cast(self.base.tensor(base_name), self.work_dtype(base_name), base_name)

    def own_dtype(self, name: str) -> str:
        """Dtype of a tensor of the fine-tune, as it is or in the dtype to work in."""
        own = self.checkpoint.dtype(name)
        return self.dtype if self.dtype and DTYPES[own].is_floating_point else own

    def tensor(self, name: str) -> Tensor:
        """A tensor of the fine-tune, as it is or in the dtype to work in.

        Raises:
            NonFiniteWeightError: It holds NaN or Inf, or would in that dtype.
        """
        return _cast(self.checkpoint.tensor(name), self.own_dtype(name), name)

    @cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(task name, base name) of floating tensors that have a delta, in the base's order."""
        both = (*self.alignment.shared, *self.alignment.grown)
        floating = (
            (name, base_name)
            for name, base_name in both
            if DTYPES[self.base.dtype(base_name)].is_floating_point
        )
        order = {name: index for index, name in enumerate(self.base.names)}
        return tuple(sorted(floating, key=lambda pair: order[pair[1]]))

    def vectors(self, *, device: str = "cpu") -> Iterator[tuple[str, Tensor]]:
        """The task vector: (base name, flat float32 on the device), one tensor at a time.

        Raises:
            NonFiniteWeightError: A tensor holds NaN or Inf.
        """
        for name, base_name in self.pairs:
            base = self.base_tensor(base_name)
            own = self.checkpoint.tensor(name)
            common = own[: len(base)] if base.ndim else own  # without the rows of a grown tensor
            # One copy, as an embedding alone may be gigabytes; not in place, as what a checkpoint
            # gives may be the mapped file itself.
            tau = common.to(device).to(torch.float32, copy=True).sub_(base.to(device))
            yield base_name, tau.reshape(-1)

    def rows(self) -> dict[str, Tensor]:
        """Rows appended to the base's tensors, by base name."""
        return {
            base_name: self.tensor(name)[self.base.shape(base_name)[0] :]
            for name, base_name in self.alignment.grown
        }

    def dense_changes(self) -> Iterator[Change]:
        """Every tensor of the fine-tune as it is, a tied one under its first name."""
        base_of = dict((*self.alignment.shared, *self.alignment.grown))
        for name in self.checkpoint.names:
            if name in self.ties.second:
                continue
            yield Change(name, base_of.get(name), Replace(self.checkpoint.tensor(name)))

    def hash(self) -> str:
        """xxh3-128 over names and hashes of all tensors: which fine-tune this is.

        Raises:
            NonFiniteWeightError: A tensor holds NaN or Inf.
        """
        return weights_hash(self.checkpoint.names, self.checkpoint.tensor)

    def dense_nbytes(self) -> int:
        """Bytes of the fine-tune's weights as they are; of an adapter its own."""
        if self.adapter is not None:
            return self.adapter.nbytes
        return sum(
            int(np.prod(self.checkpoint.shape(name), dtype=np.int64))
            * DTYPES[self.checkpoint.dtype(name)].itemsize
            for name in self.checkpoint.names
        )


def _cast(tensor: Tensor, dtype: str, name: str) -> Tensor:
    cast = tensor.to(DTYPES[dtype])
    if cast is not tensor and cast.is_floating_point() and not is_finite(cast):
        raise NonFiniteWeightError(
            f"tensor {name!r} holds values beyond the range of {dtype}; "
            "compress it for another --dtype"
        )
    return cast
