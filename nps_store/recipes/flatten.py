"""Recipes of recipes, down to stored tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nps_store.errors import RecipeCycleError, RecipeError
from nps_store.recipes.recipe import LINEAR, Recipe

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def flattened(name: str, recipes: Mapping[str, Recipe], tasks: Collection[str]) -> Recipe:
    """The recipe over stored tasks that comes to the same.

    A recipe that is a member counts as the vector that it makes, so only linear ones can be one,
    and only of linear ones.

    Args:
        name: Of a recipe.
        recipes: All of the store.
        tasks: Names of the stored tasks.

    Raises:
        RecipeCycleError: It is made of itself (names the way).
        RecipeError: A member is neither a task nor a recipe, or is a recipe and cannot be one here.
    """
    return _flattened(name, recipes, tasks, ())


def users_of(name: str, recipes: Mapping[str, Recipe]) -> list[str]:
    """Names of the recipes that are made of a task or a recipe, or have its head."""
    return sorted(
        user for user, recipe in recipes.items() if name in (*recipe.members, *recipe.heads)
    )


def _flattened(
    name: str, recipes: Mapping[str, Recipe], tasks: Collection[str], way: tuple[str, ...]
) -> Recipe:
    if name in way:
        raise RecipeCycleError(
            f"recipe {name!r} is made of itself: {' -> '.join((*way, name))}; remove one of them"
        )
    recipe = recipes[name]
    found: dict[str, tuple[float, ...]] = {}
    for member, weights in recipe.members.items():
        if member in tasks:
            found[member] = _sum(found.get(member, (0.0,)), weights)
            continue
        if member not in recipes:
            raise RecipeError(f"recipe {name!r}: the store has no task {member!r}")
        inner = _flattened(member, recipes, tasks, (*way, name))
        if recipe.rule != LINEAR or inner.rule != LINEAR:
            raise RecipeError(
                f"recipe {name!r} ({recipe.rule}) has recipe {member!r} ({inner.rule}) as a "
                "member; only linear ones can be combined"
            )
        for task, inner_weights in inner.members.items():
            found[task] = _sum(found.get(task, (0.0,)), _product(weights, inner_weights))
    return replace(recipe, members=found)


def _product(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(a * b for a, b in zip(*_alike(one, other), strict=True))


def _sum(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(a + b for a, b in zip(*_alike(one, other), strict=True))


def _alike(
    one: tuple[float, ...], other: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """One weight is one for every group."""
    n = max(len(one), len(other))
    longer = (each * n if len(each) == 1 else each for each in (one, other))
    first, second = longer
    if len(first) != len(second):
        raise RecipeError(
            f"weights for {len(first)} and for {len(second)} layer groups cannot be combined"
        )
    return first, second
