"""Which names a store's recipes stand for."""

from __future__ import annotations

import pytest

from nps_store.errors import RecipeError
from nps_store.recipes import Catalog, Recipe

TASKS = ("a", "b")


def catalog(**recipes):
    values = {n: r.to_json() if isinstance(r, Recipe) else r for n, r in recipes.items()}
    return Catalog(values, TASKS)


def test_a_recipe_with_several_heads_is_several_tasks():
    found = catalog(all=Recipe({"a": (1.0,), "b": (2.0,)}, heads=("a", "b")))
    assert found.names == ("all@a", "all@b")
    task = found.find("all@b")
    assert (task.name, task.head, task.recipe.members) == ("all@b", "b", {"a": (1.0,), "b": (2.0,)})
    assert found.find("all@c") is None
    assert found.find("a") is None
    with pytest.raises(RecipeError, match="one of them: all@a, all@b"):
        found.find("all")


@pytest.mark.parametrize(("heads", "head"), [((), "a"), (("b",), "b")])
def test_a_recipe_with_one_head_is_one_task(heads, head):
    found = catalog(half=Recipe({"a": (0.5,)}, heads=heads))
    assert found.names == ("half",)
    assert found.find("half").head == head


def test_a_recipe_of_recipes_is_flattened():
    found = catalog(half=Recipe({"a": (0.5,)}), quarter=Recipe({"half": (0.5,)}))
    assert found.find("quarter").recipe.members == {"a": (0.25,)}
    assert found.find("quarter").head == "a"


def test_a_bad_recipe_is_listed_and_refused_and_harms_no_other():
    found = catalog(bad={"schema": "x"}, gone=Recipe({"c": (1.0,)}), good=Recipe({"a": (1.0,)}))
    assert found.names == ("bad", "gone", "good")
    for name in ("bad", "gone"):
        with pytest.raises(RecipeError, match=f"recipe '{name}'"):
            found.find(name)
    assert found.find("good") is not None


def test_names_with_the_separator_are_found():
    recipes = {"x@y": Recipe({"a": (1.0,), "b": (1.0,)}, heads=("a", "b"))}
    found = catalog(**recipes)
    assert found.names == ("x@y@a", "x@y@b")
