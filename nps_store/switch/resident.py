"""A task's changes made ready to be put in place often, by the fastest exact path there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nps_store.switch import written
from nps_store.switch.packed import Packed
from nps_store.switch.run import RunDelta, SparseRun
from nps_store.switch.sparse import SparseDelta

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
        taken: dict[Group, list[tuple[int, Tensor, SparseDelta | RunDelta]]] = {
            group: [] for group in targets.groups if written.is_available(group)
        }
        rest: list[Pair] = []
        for tensor, patch in pairs:
            if not isinstance(patch, SparseDelta | RunDelta):
                rest.append((tensor, patch))
                continue
            if tensor.numel() != patch.numel:
                raise ValueError(f"patch of {patch.numel} elements for {tensor.numel()}")
            found = targets.find(tensor)
            if found is None or found[0] not in taken:
                rest.append((tensor, patch))
            elif patch.n_entries or isinstance(patch, RunDelta):  # a run is packed as a whole
                taken[found[0]].append((found[1], tensor, patch))
        if sum(patch.n_entries for each in taken.values() for *_, patch in each) < MIN_ENTRIES:
            few = [(tensor, patch) for each in taken.values() for _, tensor, patch in each]
            rest += [(tensor, patch) for tensor, patch in few if patch.n_entries]
            taken = {}
        packed = {
            group: Packed.of(group, _runs([(number, patch) for number, _, patch in each]))
            for group, each in taken.items()
            if each
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


def _runs(
    patches: Sequence[tuple[int, SparseDelta | RunDelta]],
) -> list[tuple[list[int], SparseRun]]:
    """Numbers of tensors with the runs that have their changes: those that are used as a whole as
    they are, and one of what is left."""
    of_run: dict[SparseRun, dict[int, int]] = {}
    for number, patch in patches:
        if isinstance(patch, RunDelta):
            of_run.setdefault(patch.run, {})[patch.number] = number
    whole = {run: numbers for run, numbers in of_run.items() if len(numbers) == len(run)}
    left = [
        (number, patch.run.delta(patch.number) if isinstance(patch, RunDelta) else patch)
        for number, patch in patches
        if not isinstance(patch, RunDelta) or patch.run not in whole
    ]
    runs = [([numbers[i] for i in range(len(run))], run) for run, numbers in whole.items()]
    if left:
        runs.append(([number for number, _ in left], SparseRun.of([delta for _, delta in left])))
    return runs
