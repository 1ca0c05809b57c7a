"""A task's changes made ready to be put in place often, by the fastest exact path there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nps_store.switch import written
from nps_store.switch.packed import Packed
from nps_store.switch.sparse import SparseDelta

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from nps_store.switch.patch import Patch
    from nps_store.switch.targets import Group, Targets

    Pair = tuple[Tensor, Patch]

MIN_ENTRIES = 1 << 14
"""Below that torch needs a millisecond, and loading the compiler would take seconds."""


@dataclass(frozen=True, eq=False)
class ResidentTask:
    """What a task changes in a model: packed where a loop can write it, (tensor, patch) pairs
    elsewhere.

    Attributes:
        packed: By group of the model's tensors.
        rest: Pairs for torch.
    """

    packed: dict[Group, Packed]
    rest: tuple[Pair, ...]

    @classmethod
    def of(cls, targets: Targets, pairs: Iterable[Pair]) -> ResidentTask:
        """Of pairs of live tensors and patches on any device.

        Args:
            targets: The model.
            pairs: A tensor may occur once; it may be the first rows of a target.

        Raises:
            ValueError: A patch is for another number of elements than its tensor has.
        """
        taken: dict[Group, list[tuple[int, Tensor, SparseDelta]]] = {}
        rest: list[Pair] = []
        for tensor, patch in pairs:
            group = _group(targets, tensor, patch)
            if group is None or not isinstance(patch, SparseDelta):
                rest.append((tensor, patch))
            elif len(patch.where):
                number = group.number_of[tensor.data_ptr()]
                taken.setdefault(group, []).append((number, tensor, patch))
        if sum(len(p.where) for each in taken.values() for *_, p in each) < MIN_ENTRIES:
            rest += [(tensor, patch) for each in taken.values() for _, tensor, patch in each]
            taken = {}
        packed = {
            group: Packed.of(group, ((number, patch) for number, _, patch in each))
            for group, each in taken.items()
        }
        return cls(packed, tuple((tensor, patch.to(tensor.device)) for tensor, patch in rest))

    def pinned(self) -> ResidentTask:
        """The same in pinned host memory, from where `resident` brings it back; cannot be applied
        there."""
        packed = {group: each.pinned() for group, each in self.packed.items()}
        return ResidentTask(packed, tuple((tensor, patch.to("cpu")) for tensor, patch in self.rest))

    def resident(self) -> ResidentTask:
        """The same where the tensors lie; copies may be under way on the current stream."""
        packed = {group: each.resident() for group, each in self.packed.items()}
        rest = tuple((tensor, patch.to(tensor.device)) for tensor, patch in self.rest)
        return ResidentTask(packed, rest)

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        packed = sum(each.nbytes for each in self.packed.values())
        return packed + sum(patch.nbytes for _, patch in self.rest)


def _group(targets: Targets, tensor: Tensor, patch: Patch) -> Group | None:
    """The group whose loop can take the pair; refuses what no path can."""
    if not isinstance(patch, SparseDelta):
        return None
    if tensor.numel() != patch.where.numel:
        raise ValueError(f"patch of {patch.where.numel} elements for {tensor.numel()}")
    for group in targets.groups:
        if group.has(tensor) and written.is_available(group):
            return group
    return None
