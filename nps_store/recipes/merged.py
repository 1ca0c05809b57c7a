"""The change that a recipe means for each tensor of the base: its members', combined.

Members are summed in float32 at the positions that any of them changes, and the base is changed by
the sum once, so that a merged task is put in place and reverted like any other.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import torch

from nps_store.recipes.combine import combined
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
    for name, numel in numels.items():
        of_members = {m: patches[m][name] for m in recipe.members if name in patches[m]}
        if of_members:
            weights = [_weight(recipe.members[m], group_of[name]) for m in of_members]
            where, deltas = _aligned([*of_members.values()], numel, partial(base, name))
            values = combined(recipe.rule, deltas, weights, recipe.params)
            yield name, SparseDelta.of_values(where, values)


def groups(names: Iterable[str], n_groups: int) -> dict[str, int]:
    """The group of each tensor: 0 outside the layers, then layers in equal shares, in order."""
    layer_of = {name: int(found[1]) if (found := _LAYER.search(name)) else None for name in names}
    n_layers = 1 + max((layer for layer in layer_of.values() if layer is not None), default=0)
    return {
        name: 0 if layer is None or n_groups == 1 else 1 + layer * (n_groups - 1) // n_layers
        for name, layer in layer_of.items()
    }


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
