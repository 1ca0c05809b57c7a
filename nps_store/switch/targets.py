"""The live tensors of a model, numbered once, so that every task speaks of them alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nps_store.switch.sparse import n_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
"""The dtypes of weights that there are loops for, and their bits as integers."""


@dataclass(frozen=True, eq=False)
class Group:
    """Tensors of one dtype on one device, as the loops see them.

    Attributes:
        tensors: In order of address.
        addresses: int64 [n_tensors], on the device.
        numels: int64 [n_tensors], on the device.
        first_block: int64 [n_tensors], each tensor's first among all blocks, on the device.
        tensor_of: int32 [n_blocks], the tensor that a block is of, on the device.
    """

    tensors: tuple[Tensor, ...]
    addresses: Tensor
    numels: Tensor
    first_block: Tensor
    tensor_of: Tensor

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> Group:
        """Of tensors that differ in their addresses."""
        ordered = tuple(sorted(tensors, key=Tensor.data_ptr))
        device = ordered[0].device
        addresses = [tensor.data_ptr() for tensor in ordered]
        blocks = torch.tensor([n_blocks(tensor.numel()) for tensor in ordered])
        numbers = torch.arange(len(ordered), dtype=torch.int32)
        return cls(
            tensors=ordered,
            addresses=torch.tensor(addresses, device=device),
            numels=torch.tensor([tensor.numel() for tensor in ordered], device=device),
            first_block=(blocks.cumsum(0) - blocks).to(device),
            tensor_of=numbers.repeat_interleave(blocks).to(device),
        )

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.tensors[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Of the tensors."""
        return self.tensors[0].dtype


class Targets:
    """What tasks are put into: the live tensors of one model, which must stay where they are.

    Attributes:
        groups: Those that a loop can write, by device and dtype.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        """Of tensors on any device; of several at one address the largest counts."""
        largest: dict[int, Tensor] = {}
        for tensor in tensors:
            if tensor.dtype in BITS and tensor.is_contiguous() and tensor.numel():
                known = largest.get(tensor.data_ptr())
                if known is None or known.numel() < tensor.numel():
                    largest[tensor.data_ptr()] = tensor.detach()
        kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for tensor in largest.values():
            kinds.setdefault((tensor.device, tensor.dtype), []).append(tensor)
        self.groups = tuple(Group.of(each) for each in kinds.values())
        self._places = {
            tensor.data_ptr(): (group, number)
            for group in self.groups
            for number, tensor in enumerate(group.tensors)
        }

    def find(self, tensor: Tensor) -> tuple[Group, int] | None:
        """Where a tensor is among these, as one of them or the first rows of one."""
        place = self._places.get(tensor.data_ptr())
        if place is None or not tensor.is_contiguous():
            return None
        known = place[0].tensors[place[1]]
        is_same = tensor.dtype == known.dtype and tensor.device == known.device
        return place if is_same and tensor.numel() <= known.numel() else None
