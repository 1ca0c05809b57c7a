"""What a recipe may say, and that it comes back from JSON as it was."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nps_store.errors import RecipeError
from nps_store.recipes import MOST_WEIGHTS, N_BANDS, Recipe, band_params, normalised

DECREASING = band_params([3.0, 2.0, 1.0, 0.0, 0.0], [1.0] * N_BANDS)
NUMBERS = st.floats(-10, 10)
MEMBERS = st.integers(1, 5).flatmap(
    lambda n: st.dictionaries(
        st.text(min_size=1, max_size=5), st.tuples(*[NUMBERS] * n), min_size=1, max_size=4
    )
)


@settings(max_examples=50, deadline=None)
@given(members=MEMBERS)
def test_comes_back_from_json(members):
    recipe = Recipe(members, "consensus", {"at_least": 2.0}, ("a", "b"), {"created": "now"})
    again = Recipe.from_json(json.loads(json.dumps(recipe.to_json())), "all")
    assert again == recipe
    assert list(again.members) == list(members)  # the order of summation


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": {}}, "0 members; expected 1 to 256"),
        ({"members": {"a": ()}}, "'a': got 0; expected 1 to 64"),
        ({"members": {"a": (math.nan,)}}, "'a': expected numbers, got nan"),
        ({"members": {"a": (1.0, 2.0), "b": (1.0, 2.0, 3.0)}}, "different numbers of layer"),
        ({"rule": "magic"}, "unknown rule 'magic'"),
        ({"rule": "consensus"}, r"'consensus' has the parameters \[\]; expected at_least"),
        ({"rule": "consensus", "params": {"at_least": math.inf}}, "expected numbers, got inf"),
        ({"rule": "dare", "params": {"drop": 1.0, "seed": 0.0}}, "share to drop is 1.0"),
        ({"rule": "dare", "params": {"drop": 0.5, "seed": 0.5}}, "seed is 0.5"),
        ({"rule": "dare", "params": {"drop": 0.5, "seed": -1.0}}, "seed is -1.0"),
        ({"rule": "bands", "params": DECREASING}, "edges of the bands decrease"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    with pytest.raises(RecipeError, match=message):
        Recipe(**{"members": {"a": (1.0,)}, **change})


@pytest.mark.parametrize("n_members", [2, 8, 20])
def test_a_learned_recipe_takes_less_than_a_kilobyte(n_members):
    """With as many weights as learned ones were seen to be different, and what is noted of it."""
    rng = np.random.default_rng(0)
    names = [f"fine-tune number {n}" for n in range(n_members)]
    shape = n_members, min(MOST_WEIGHTS // n_members, 64)
    rows = np.round(np.round(rng.normal(0.2, 0.45, shape) / 0.05) * 0.05, 2).tolist()
    members = {name: tuple(row) for name, row in zip(names, rows, strict=True)}
    quality = {"measure": "distill", "value": 0.123456, "members": dict.fromkeys(names, 0.1234567)}
    search = {"loss": 0.1234567890123, "evaluations": 8}
    meta = {"created": "2026-11-23T00:00:00+00:00", "quality": quality, "search": search}
    assert Recipe(members, heads=tuple(names), meta=meta).nbytes < 1024


BARE = {"schema": "nps.recipe/1", "rule": "linear", "params": {}, "heads": [], "meta": {}}


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"schema": "nps.recipe/9"},
        {"schema": "nps.recipe/1"},
        {**BARE, "members": 3},
        {**BARE, "members": [["a"]]},
        {**BARE, "members": [["a", [1]], ["a", [2]]]},
        {**BARE, "members": [["a", [1]]], "heads": ["a", "a"]},
    ],
)
def test_other_json_is_refused_by_name(value):
    with pytest.raises(RecipeError, match="recipe 'all'"):
        Recipe.from_json(value, "all")


def test_weights_are_divided_by_their_sum():
    found = normalised({"a": 1.0, "b": 3.0}, scale=2.0)
    assert found == {"a": (0.5,), "b": (1.5,)}


@pytest.mark.parametrize("weights", [{"a": 1.0, "b": -1.0}, {"a": math.nan}, {}])
def test_weights_that_cannot_be_divided_are_refused(weights):
    with pytest.raises(RecipeError):
        normalised(weights)
