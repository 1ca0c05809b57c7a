"""A task that is made of others: which ones, how much of each, and by what rule."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from formats.canonical import dump
from nps_store.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from formats.canonical import JSON

SCHEMA: Final = "nps.recipe/1"
LINEAR: Final = "linear"
BANDS: Final = "bands"
DARE: Final = "dare"
N_BANDS: Final = 6
EDGES: Final = tuple(f"edge_{band}" for band in range(1, N_BANDS))
FACTORS: Final = tuple(f"band_{band}" for band in range(N_BANDS))
RULES: Final = {
    LINEAR: (),
    BANDS: (*EDGES, *FACTORS),
    "ties": (),
    "consensus": ("at_least",),
    DARE: ("drop", "seed"),
}
"""Rules by which task vectors are combined, and the parameters that each takes."""
MAX_MEMBERS = 256
MAX_GROUPS = 64
MOST_WEIGHTS = 448
"""So many, to two digits, take less than 1 KB with what is noted of a search."""
MAX_SEED = 1 << 53
"""Whole numbers up to this are themselves in the float64 that parameters are."""


@dataclass(frozen=True)
class Recipe:
    """A virtual task.

    Attributes:
        members: Weight of each member's task vector: one, or one for each group of layers.
        rule: How they are combined; a name in `RULES`.
        params: Of the rule.
        heads: Stored tasks that lend head and files: with several, there is a task for each.
        meta: How it was made, and what was measured.
    """

    members: Mapping[str, tuple[float, ...]]
    rule: str = LINEAR
    params: Mapping[str, float] = field(default_factory=dict)
    heads: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what needs no store.

        Raises:
            RecipeError: Says what is wrong.
        """
        if not 0 < len(self.members) <= MAX_MEMBERS:
            raise RecipeError(
                f"a recipe has {len(self.members)} members; expected 1 to {MAX_MEMBERS}"
            )
        if self.rule not in RULES:
            known = ", ".join(RULES)
            raise RecipeError(f"unknown rule {self.rule!r} of a recipe; expected one of {known}")
        if {*self.params} != {*RULES[self.rule]}:
            wanted = ", ".join(RULES[self.rule]) or "none"
            raise RecipeError(
                f"rule {self.rule!r} has the parameters {sorted(self.params)}; expected {wanted}"
            )
        for name, weights in self.members.items():
            _check_weights(f"weights of member {name!r}", weights)
        if len({len(weights) for weights in self.members.values()} - {1}) > 1:
            raise RecipeError("members have weights for different numbers of layer groups")
        _check_finite("parameters of the rule", tuple(self.params.values()))
        _check_params(self.rule, self.params)

    @property
    def n_groups(self) -> int:
        """Groups of layers that have weights of their own."""
        return max(map(len, self.members.values()))

    @property
    def nbytes(self) -> int:
        """Bytes it takes, compressed by itself; it lies in the store's index."""
        return len(dump(self.to_json()))

    def to_json(self) -> JSON:
        """For the store's index; the order of the members is that of summation."""
        return {
            "schema": SCHEMA,
            "rule": self.rule,
            "members": [[name, list(weights)] for name, weights in self.members.items()],
            "params": dict(self.params),
            "heads": list(self.heads),
            "meta": dict(self.meta),
        }

    @classmethod
    def from_json(cls, value: JSON, name: str) -> Self:
        """Inverse of `to_json`.

        Args:
            value: What a store holds.
            name: Of the recipe, for the error.

        Raises:
            RecipeError: It is not that of a recipe, or of a newer kind.
        """
        try:
            return cls(*_parsed(value))
        except RecipeError as error:
            raise RecipeError(f"recipe {name!r}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RecipeError(f"recipe {name!r} is malformed: {error!r}") from error


def band_params(edges: Sequence[float], factors: Sequence[float]) -> dict[str, float]:
    """Parameters of the rule by magnitude bands.

    Args:
        edges: Lower edges of all bands but the first, not decreasing.
        factors: Weight of every band.
    """
    return dict(zip((*EDGES, *FACTORS), (*edges, *factors), strict=True))


def normalised(weights: Mapping[str, float], *, scale: float = 1.0) -> dict[str, tuple[float]]:
    """Weights divided by their sum, times an overall scale (the paper's equation of fusion).

    Raises:
        RecipeError: They sum to zero, or one is no number.
    """
    total = math.fsum(weights.values())
    _check_finite("weights", (*weights.values(), scale))
    if total == 0:
        raise RecipeError("the weights sum to zero, so they cannot be divided by their sum")
    return {name: (scale * weight / total,) for name, weight in weights.items()}


def _parsed(
    value: Any,  # noqa: ANN401 (whatever a store holds)
) -> tuple[dict[str, tuple[float, ...]], str, dict[str, float], tuple[str, ...], dict[str, Any]]:
    if value["schema"] != SCHEMA:
        raise RecipeError(f"of kind {value['schema']!r}; this version knows {SCHEMA!r}")
    members = {str(who): tuple(map(float, weights)) for who, weights in value["members"]}
    if len(members) != len(value["members"]):
        raise RecipeError("a member is named twice")
    params = {str(key): float(each) for key, each in value["params"].items()}
    heads = tuple(map(str, value["heads"]))
    if len({*heads}) != len(heads):
        raise RecipeError("a head is named twice")
    return members, str(value["rule"]), params, heads, dict(value["meta"])


def _check_params(rule: str, params: Mapping[str, float]) -> None:
    edges = [params[edge] for edge in EDGES if rule == BANDS]
    if edges != sorted(edges):
        raise RecipeError(f"edges of the bands decrease: {edges}")
    if rule == DARE and not 0 <= params["drop"] < 1:
        raise RecipeError(f"share to drop is {params['drop']}; expected 0 or more, below 1")
    if rule == DARE and not (params["seed"].is_integer() and 0 <= params["seed"] <= MAX_SEED):
        raise RecipeError(f"seed is {params['seed']}; expected a whole number up to {MAX_SEED}")


def _check_weights(what: str, weights: tuple[float, ...]) -> None:
    if not 0 < len(weights) <= MAX_GROUPS:
        raise RecipeError(f"{what}: got {len(weights)}; expected 1 to {MAX_GROUPS}")
    _check_finite(what, weights)


def _check_finite(what: str, numbers: tuple[float, ...]) -> None:
    for number in numbers:
        if not math.isfinite(number):
            raise RecipeError(f"{what}: expected numbers, got {number}")
