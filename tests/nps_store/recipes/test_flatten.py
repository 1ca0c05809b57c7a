"""Recipes of recipes come to the sum that they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nps_store.errors import RecipeCycleError, RecipeError
from nps_store.recipes import Recipe, flattened, users_of

TASKS = ("a", "b", "c")
WEIGHTS = st.one_of(*[st.tuples(*[st.integers(-3, 3).map(float)] * n) for n in (1, 2)])


def value_of(name, recipes, group):
    """What a name stands for: coefficients of the tasks, by recursion."""
    if name in TASKS:
        return {name: 1.0}
    total = dict.fromkeys(TASKS, 0.0)
    for member, weights in recipes[name].members.items():
        for task, each in value_of(member, recipes, group).items():
            total[task] += weights[group if len(weights) > 1 else 0] * each
    return total


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_is_the_same_sum(data):
    recipes = {}
    for number in range(4):
        known = [*TASKS, *recipes]
        recipes[f"r{number}"] = Recipe(
            data.draw(st.dictionaries(st.sampled_from(known), WEIGHTS, min_size=1, max_size=3))
        )
    for name in recipes:
        flat = flattened(name, recipes, TASKS)
        assert {*flat.members} <= {*TASKS}
        for group in range(2):
            found = {task: weights[group if len(weights) > 1 else 0]
                     for task, weights in flat.members.items()}  # fmt: skip
            expected = value_of(name, recipes, group)
            assert {t: v for t, v in found.items() if v} == {t: v for t, v in expected.items() if v}


def test_cycles_are_refused_with_their_way():
    recipes = {"x": Recipe({"y": (1.0,)}), "y": Recipe({"a": (1.0,), "x": (1.0,)})}
    with pytest.raises(RecipeCycleError, match="x -> y -> x"):
        flattened("x", recipes, TASKS)


def test_unknown_members_are_refused_by_name():
    with pytest.raises(RecipeError, match="recipe 'x': the store has no task 'gone'"):
        flattened("x", {"x": Recipe({"gone": (1.0,)})}, TASKS)


@pytest.mark.parametrize(("outer", "inner"), [("ties", "linear"), ("linear", "ties")])
def test_only_linear_recipes_are_combined(outer, inner):
    recipes = {"x": Recipe({"y": (1.0,)}, outer), "y": Recipe({"a": (1.0,)}, inner)}
    with pytest.raises(RecipeError, match="only linear ones"):
        flattened("x", recipes, TASKS)


def test_other_group_counts_are_refused():
    recipes = {"x": Recipe({"y": (1.0, 2.0)}), "y": Recipe({"a": (1.0, 2.0, 3.0)})}
    with pytest.raises(RecipeError, match="2 and for 3 layer groups"):
        flattened("x", recipes, TASKS)


def test_users_are_found():
    recipes = {"x": Recipe({"a": (1.0,)}), "y": Recipe({"x": (1.0,), "b": (1.0,)})}
    assert users_of("a", recipes) == ["x"]
    assert users_of("x", recipes) == ["y"]
    assert users_of("y", recipes) == []
