"""Names that recipes stand for in a store.

A recipe that merges classifiers lends each member's head to the merged body: it is as many tasks,
named recipe@member. Any other recipe is one task of its own name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nps_store.errors import RecipeError
from nps_store.recipes.flatten import flattened
from nps_store.recipes.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from formats.canonical import JSON

SEPARATOR = "@"


@dataclass(frozen=True)
class VirtualTask:
    """A task that a recipe makes.

    Attributes:
        name: As requests name it.
        recipe: Over stored tasks.
        head: The stored task whose head and files it has.
    """

    name: str
    recipe: Recipe
    head: str


class Recipes(Mapping[str, Recipe]):
    """The recipes of one generation of a store by name, parsed when asked for, so that a bad one
    does no harm to the others; that one raises RecipeError."""

    def __init__(self, values: Mapping[str, JSON]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Recipe:
        return Recipe.from_json(self._values[name], name)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._values))

    def __len__(self) -> int:
        return len(self._values)


class Catalog:
    """The virtual tasks of one generation of a store.

    Attributes:
        recipes: What they are made by.
    """

    def __init__(self, recipes: Mapping[str, JSON], tasks: Collection[str]) -> None:
        self.recipes = Recipes(recipes)
        self._tasks = tasks

    @property
    def names(self) -> tuple[str, ...]:
        """Of all virtual tasks; a bad recipe has its own name."""
        return tuple(name for recipe in self.recipes for name in self._names_of(recipe))

    def find(self, name: str) -> VirtualTask | None:
        """The virtual task of a name; None if it is none.

        Raises:
            RecipeError: The recipe is bad (says what is wrong).
        """
        recipe, head = (name, "") if name in self.recipes else _split(name)
        if recipe not in self.recipes:
            return None
        heads = self.recipes[recipe].heads
        if head and head not in heads:
            return None
        if not head and len(heads) > 1:
            raise RecipeError(
                f"recipe {recipe!r} has the heads of {len(heads)} tasks; ask for one of them: "
                f"{', '.join(self._names_of(recipe))}"
            )
        flat = flattened(recipe, self.recipes, self._tasks)
        lender = head or (heads or tuple(flat.members))[0]
        if lender not in self._tasks:
            raise RecipeError(f"recipe {recipe!r}: the store has no task {lender!r}")
        return VirtualTask(name, flat, lender)

    def _names_of(self, name: str) -> tuple[str, ...]:
        try:
            heads = self.recipes[name].heads
        except RecipeError:
            heads = ()
        return tuple(f"{name}{SEPARATOR}{head}" for head in heads) if len(heads) > 1 else (name,)


def _split(name: str) -> tuple[str, str]:
    """Recipe and head, where a name has the separator."""
    recipe, separator, head = name.rpartition(SEPARATOR)
    return (recipe, head) if separator else (name, "")
