"""Recipes into a store, and tasks out of it that no recipe is made of."""

from __future__ import annotations

from dataclasses import replace as with_fields
from typing import TYPE_CHECKING

from formats.container import Container
from formats.writer import ContainerWriter
from nps_store.errors import RecipeError, TaskExistsError, TaskInUseError
from nps_store.recipes.catalog import Catalog, Recipes
from nps_store.recipes.flatten import flattened, users_of
from nps_store.recipes.members import check_alike

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from nps_store.recipes.recipe import Recipe

MAX_NBYTES = 1 << 16
"""Of a stored recipe; what is noted of it is bounded by this, too."""


def add_recipe(
    path: str | os.PathLike[str], name: str, recipe: Recipe, *, replace: bool = False
) -> tuple[str, ...]:
    """Note a recipe in a store; a running server picks it up.

    Classifiers lend it their heads.

    Args:
        path: The store.
        name: Of the recipe.
        recipe: Its members are tasks or recipes of the store.
        replace: Put it in place of a recipe of that name.

    Returns:
        Names of the tasks that it makes.

    Raises:
        TaskExistsError: There is a task of that name, or a recipe that is not to be replaced.
        RecipeError: A member is missing, or it is made of itself.
        UnsupportedTaskError: Members cannot be merged with each other (says why).
    """
    with ContainerWriter.open(path) as writer, Container.open(path) as container:
        made, names = _checked(container, name, recipe, replace=replace)
        writer.set_recipe(name, made.to_json())
        writer.commit()
    return names


def check_recipe(
    path: str | os.PathLike[str], name: str, recipe: Recipe, *, replace: bool = False
) -> None:
    """Refuse what `add_recipe` would, before weights are searched for it.

    Args:
        path: The store.
        name: Of the recipe.
        recipe: As it will be, but for its numbers.
        replace: Put it in place of a recipe of that name.

    Raises:
        NpsError: As `add_recipe`.
    """
    with Container.open(path) as container:
        _checked(container, name, recipe, replace=replace)


def remove(path: str | os.PathLike[str], names: Sequence[str]) -> int:
    """Take tasks and recipes out of a store.

    Returns:
        The new generation.

    Raises:
        TaskNotFoundError: There is none of a name.
        TaskInUseError: A recipe that stays is made of one (names both).
    """
    with ContainerWriter.open(path) as writer:
        staying = Recipes({k: v for k, v in writer.recipes.items() if k not in names})
        for name in names:
            if users := users_of(name, staying):
                raise TaskInUseError(
                    f"{path}: {name!r} is used by recipe {users[0]!r}; remove that first, or both"
                )
        for name in names:
            if name in writer.recipes:
                writer.remove_recipe(name)
            else:
                writer.remove_task(name)
        return writer.commit()


def _checked(
    container: Container, name: str, recipe: Recipe, *, replace: bool
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with its heads, and the names of its tasks."""
    path, root = container.path, container.root
    if name in root.tasks or (name in root.recipes and not replace):
        hint = "choose another name" if name in root.tasks else "use --replace to replace it"
        raise TaskExistsError(f"{path}: already has {name!r}; {hint}")
    others = {other: value for other, value in root.recipes.items() if other != name}
    members = flattened(name, _with(Recipes(others), name, recipe), root.tasks).members
    made = with_fields(recipe, heads=_heads(container, name, [*members]))
    if made.nbytes > MAX_NBYTES:
        raise RecipeError(f"recipe {name!r} takes more than {MAX_NBYTES} bytes")
    names = Catalog({name: made.to_json()}, root.tasks).names
    taken = {*root.tasks, *Catalog(others, root.tasks).names} & {*names}
    if taken:
        raise TaskExistsError(f"{path}: already has {min(taken)!r}; choose another name")
    return made, names


def _with(recipes: Recipes, name: str, recipe: Recipe) -> Mapping[str, Recipe]:
    return {**recipes, name: recipe}


def _heads(container: Container, name: str, members: Sequence[str]) -> tuple[str, ...]:
    """Members with tensors that the base lacks."""
    directories = {member: container.directory(member) for member in members}
    check_alike(name, directories)
    return tuple(m for m in members if None in directories[m].tensors.bases)
