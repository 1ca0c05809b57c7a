"""Rules by which task vectors are merged into one, element by element.

Everything is computed in float32, member after member in the recipe's order, so that the same
recipe gives the same bits on every machine; the caller rounds once to the model's dtype.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nps_store.recipes.recipe import BANDS, DARE, EDGES, FACTORS, LINEAR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


def combined(
    rule: str, deltas: Sequence[Tensor], weights: Sequence[float], params: Mapping[str, float]
) -> Tensor:
    """The merged change of some elements.

    Args:
        rule: Name in `recipe.RULES`.
        deltas: Each member's change, float32 [n]; 0 where it has none.
        weights: Of the members.
        params: Of the rule.

    Returns:
        float32 [n].
    """
    if rule in {LINEAR, DARE}:  # members are thinned out before
        return _weighted_sum(deltas, weights)
    if rule == BANDS:
        edges, factors = ([params[name] for name in names] for names in (EDGES, FACTORS))
        return banded(deltas, weights, edges, factors)
    if rule == "ties":
        return ties(deltas, weights)
    return consensus(deltas, weights, at_least=int(params["at_least"]))


def ties(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The mean of those members that go the way that the sum goes (TIES, arXiv 2306.01708,
    equations 2 and 3, without its trimming, which is a matter of the members)."""
    elected = torch.sign(_weighted_sum(deltas, [1.0] * len(deltas)))
    agreeing = [torch.where(torch.sign(delta) == elected, delta, 0.0) for delta in deltas]
    n_agreeing = sum((delta != 0).to(torch.float32) for delta in agreeing)
    return _weighted_sum(agreeing, weights) / torch.as_tensor(n_agreeing).clamp_(min=1)


def banded(
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    edges: Sequence[float],
    factors: Sequence[float],
) -> Tensor:
    """The weighted sum of members whose elements are first weighted by their magnitude's band
    (Neural Parameter Search, equation 4).

    Args:
        deltas: Each member's change, float32 [n].
        weights: Of the members.
        edges: Lower edges of all bands but the first, increasing.
        factors: Weight of every band.
    """
    bounds, factor = (deltas[0].new_tensor([*each]) for each in (edges, factors))
    bands = (torch.bucketize(delta.abs(), bounds, right=True) for delta in deltas)
    return _weighted_sum(
        [delta * factor[band] for delta, band in zip(deltas, bands, strict=True)], weights
    )


def consensus(deltas: Sequence[Tensor], weights: Sequence[float], *, at_least: int) -> Tensor:
    """The weighted sum where so many members change an element (Consensus Merging, arXiv
    2405.07813, section 4.3)."""
    n_active = sum((delta != 0).to(torch.int32) for delta in deltas)
    return torch.where(torch.as_tensor(n_active) >= at_least, _weighted_sum(deltas, weights), 0.0)


def _weighted_sum(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = torch.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights, strict=True):
        total += delta * torch.tensor(
            weight, dtype=torch.float32
        )  # a rounded factor on all devices
    return total
