"""The change that a recipe means for each tensor of the base: its members', combined.

Members are summed in float32 at the positions that any of them changes, and the base is changed by
the sum once, so that a merged task is put in place and reverted like any other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from formats.dither import BLOCK, ranks_of, tensor_seed
from nps_store.recipes.combine import combined
from nps_store.recipes.recipe import DARE
from nps_store.switch import BlockIndex, SparseDelta

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from nps_store.recipes.recipe import Recipe
    from nps_store.switch import Patch

_LAYER = re.compile(r"\.(\d+)\.")


def merged(
    recipe: Recipe,
    patches: Mapping[str, Mapping[str, Patch]],
    numels: Mapping[str, int],
    base: Callable[[str], Tensor],
) -> Iterator[tuple[str, SparseDelta]]:
    """What a recipe changes, one tensor at a time.

    Args:
        recipe: Of stored tasks only.
        patches: Of each member, by names of the base's tensors.
        numels: Elements of all tensors of the base; layers are counted in their names.
        base: Gives a base tensor, flat, in the dtype that the members work in.
    """
    group_of = groups(numels, recipe.n_groups)
    for name in numels:
        aligned = AlignedTensor.of(name, recipe.members, patches, numels, base)
        if aligned is not None:
            yield name, aligned.merged(recipe, group_of[name])


@dataclass(frozen=True, eq=False)
class AlignedTensor:
    """Changes of one tensor by several members, at the positions of all of them.

    Attributes:
        name: Of the tensor.
        where: The positions.
        deltas: What each of the members that change it adds there, float32 [n].
    """

    name: str
    where: BlockIndex
    deltas: dict[str, Tensor]

    @classmethod
    def of(
        cls,
        name: str,
        members: Iterable[str],
        patches: Mapping[str, Mapping[str, Patch]],
        numels: Mapping[str, int],
        base: Callable[[str], Tensor],
    ) -> AlignedTensor | None:
        """None where no member changes the tensor; arguments as for `merged`."""
        found = {member: patches[member][name] for member in members if name in patches[member]}
        if not found:
            return None
        where, deltas = _aligned([*found.values()], numels[name], partial(base, name))
        return cls(name, where, dict(zip(found, deltas, strict=True)))

    def merged(self, recipe: Recipe, group: int) -> SparseDelta:
        """What a recipe of these members makes of it.

        Args:
            recipe: Whose weights count.
            group: The tensor's group of layers.
        """
        weights = [_weight(recipe.members[member], group) for member in self.deltas]
        deltas = [*self.deltas.values()]
        if recipe.rule == DARE:
            drop, seed = recipe.params["drop"], int(recipe.params["seed"])
            deltas = [delta * self._kept(who, drop, seed) for who, delta in self.deltas.items()]
        values = combined(recipe.rule, deltas, weights, recipe.params)
        return SparseDelta.of_values(self.where, values)

    def _kept(self, member: str, drop: float, seed: int) -> Tensor:
        """float32 [n]: 0 with probability `drop`, else what makes up for that.

        By the container's dither of seed, member and tensor, so that a number belongs to a position
        whatever else is changed; members have numbers of their own.
        """
        positions = self.where.positions().cpu().numpy()
        ranks = ranks_of(tensor_seed(f"{seed}:{member}", self.name), positions)
        kept = torch.from_numpy(ranks.astype(np.float32) + 0.5 >= drop * BLOCK)
        factor = torch.tensor(1 / (1 - drop), dtype=torch.float32)
        return (kept * factor).to(self.where.offsets.device)

    def to(self, device: torch.device | str) -> AlignedTensor:
        """The same on `device`."""
        deltas = {name: delta.to(device) for name, delta in self.deltas.items()}
        return AlignedTensor(self.name, self.where.to(device), deltas)


def groups(names: Iterable[str], n_groups: int) -> dict[str, int]:
    """The group of each tensor: 0 outside the layers, then layers in equal shares, in order. Where
    groups are more than that, modules (a weight and its bias) in equal shares, in order."""
    names = [*names]
    layer_of = {name: int(found[1]) if (found := _LAYER.search(name)) else None for name in names}
    n_layers = 1 + max((layer for layer in layer_of.values() if layer is not None), default=0)
    if n_groups > 1 + n_layers:
        modules = _modules(names)
        return {name: modules[_module(name)] * n_groups // len(modules) for name in names}
    return {
        name: 0 if layer is None or n_groups == 1 else 1 + layer * (n_groups - 1) // n_layers
        for name, layer in layer_of.items()
    }


def most_groups(names: Iterable[str]) -> int:
    """As many as have a tensor each: modules."""
    return len(_modules(names))


def _modules(names: Iterable[str]) -> dict[str, int]:
    """Their numbers, in order."""
    return {module: n for n, module in enumerate(dict.fromkeys(map(_module, names)))}


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _aligned(
    patches: Sequence[Patch], numel: int, base: Callable[[], Tensor]
) -> tuple[BlockIndex, list[Tensor]]:
    """All positions that any patch changes, and what each of them adds there, float32 [n]."""
    indices = [patch.index for patch in patches]
    known = [index for index in indices if index is not None]
    is_sparse = len(known) == len(patches)
    positions = torch.unique(torch.cat(known)) if is_sparse else torch.arange(numel)
    deltas = []
    for patch, index in zip(patches, indices, strict=True):
        delta = torch.zeros(len(positions))
        at = slice(None) if index is None else torch.searchsorted(positions, index)
        delta[at] = patch.added(base)
        deltas.append(delta)
    return BlockIndex.of(positions.numpy(), numel), deltas


def _weight(weights: tuple[float, ...], group: int) -> float:
    return weights[group] if len(weights) > 1 else weights[0]
