"""A recipe's tasks in a real store: read, served, exported, replaced and removed."""

from __future__ import annotations

import shutil

import pytest
import torch

from formats.container import Container
from formats.errors import TaskNotFoundError
from formats.writer import ContainerWriter
from nps_store import LiveBase, Store
from nps_store.compress import Options, add, compress
from nps_store.errors import (
    RecipeCycleError,
    RecipeError,
    TaskExistsError,
    TaskInUseError,
    UnsupportedTaskError,
)
from nps_store.export import export_task
from nps_store.recipes import Recipe
from nps_store.recipes.writing import add_recipe, remove
from tests.nps_store.models import grow, same, weights

NAMES = ("two", "three", "five")
WEIGHTS = {"two": (0.5,), "three": (0.25,), "five": (-0.5,)}


@pytest.fixture(scope="module", params=["nps", "exact"])
def stored(request, zoo, tmp_path_factory):
    path = tmp_path_factory.mktemp("virtual") / "all.nps"
    sources = [zoo.source(name, calibrated=False) for name in NAMES]
    keep = {"keep": 0.2} if request.param == "nps" else {}
    compress(zoo.base, sources, path, options=Options(method=request.param, **keep))
    return path


@pytest.fixture
def path(stored, tmp_path):
    return shutil.copy(stored, tmp_path / "own.nps")


def bodies(store, name):
    """Float32 tensors of a task's body by the base's names."""
    directory = store.task(name).directory
    tensors = store.materialize(name)
    names = [tensor.name for tensor in store.base_tensors]
    return {n: tensors[directory.prefix + n] for n in names if directory.prefix + n in tensors}


def test_the_body_is_the_base_and_the_members_changes(zoo, path):
    assert add_recipe(path, "all", Recipe(WEIGHTS)) == ("all@two", "all@three", "all@five")
    with Store.open(path) as store:
        assert {"all@two", "all@three", "all@five"} < {*store.tasks}
        members = {name: bodies(store, name) for name in NAMES}
        for name, tensor in bodies(store, "all@three").items():
            base = store.base.tensor(name)
            expected = base + sum(w * (members[m][name] - base) for m, (w,) in WEIGHTS.items())
            torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-6)
        own = store.materialize("three")
        body = {store.task("three").directory.prefix + t.name for t in store.base_tensors}
        heads = own.keys() - body
        merged = store.materialize("all@three")
        assert len(heads) > 0
        assert all(torch.equal(merged[name], own[name]) for name in heads)
        assert merged.keys() == own.keys()
        assert store.task("all@three").config == store.task("three").config


def test_it_is_put_in_place_as_it_is_materialized_and_reverted_bit_for_bit(path):
    add_recipe(path, "all", Recipe(WEIGHTS))
    with Store.open(path) as store:
        live = LiveBase.load(store)
        ids = None
        for name in ("all@two", "five", "all@five", "all@two"):
            prepared = live.prepare(name)
            live.switch_(prepared)
            ids = ids or prepared.encode(["some text", "more"])
            found = live.run(prepared, ids)
            copied = live.prepare(name, copy=True)
            assert torch.equal(found, live.run(copied, ids))
        assert live.verify()


def test_an_exported_one_is_what_is_materialized(path, tmp_path):
    add_recipe(path, "all", Recipe(WEIGHTS))
    with Store.open(path) as store:
        export_task(store, "all@two", tmp_path / "out")
        assert same(weights(tmp_path / "out"), store.materialize("all@two"))
        specs = {spec.name: tuple(spec.shape) for spec in store.specs("all@two")}
        assert specs == {n: tuple(t.shape) for n, t in store.materialize("all@two").items()}


def test_the_whole_of_one_task_is_that_task(path):
    add_recipe(path, "same", Recipe({"two": (1.0,)}))
    with Store.open(path) as store:
        whole, task = store.materialize("same"), store.materialize("two")
        assert whole.keys() == task.keys()
        for name, tensor in whole.items():
            torch.testing.assert_close(tensor, task[name], rtol=0, atol=1e-7)


def test_a_recipe_takes_less_than_a_kilobyte(path):
    before = Container.open(path).nbytes
    add_recipe(path, "all", Recipe(WEIGHTS))
    with Store.open(path) as store:
        assert 0 < store.task("all@two").nbytes < 1000
        once = store.nbytes - before
    add_recipe(path, "more", Recipe(WEIGHTS))
    with Store.open(path) as store:
        assert store.nbytes - before - once < once + 1000  # each commit writes the index anew


def test_its_content_changes_with_a_member(zoo, path):
    add_recipe(path, "all", Recipe(WEIGHTS))
    with Store.open(path) as store:
        before = store.task("all@two").content_hash
        add(path, [zoo.source("five", calibrated=False)], options=Options(keep=0.3), replace=True)
        assert store.refresh()
        assert store.task("all@two").content_hash != before
        assert store.task("two").content_hash != store.task("all@two").content_hash


def test_contents_are_told_apart_without_reading_weights(path):
    add_recipe(path, "half", Recipe({"two": (0.5,)}))
    add_recipe(path, "less", Recipe({"two": (0.25,)}))
    with ContainerWriter.open(path) as writer:
        writer.set_recipe("bad", {"schema": "nps.recipe/9"})
        writer.commit()
    with Store.open(path) as store:
        hashes = {name: store.content_hash(name) for name in store.tasks}
        assert len({*hashes.values()}) == len(hashes) == 6
        for name in ("two", "half"):
            assert hashes[name] == store.task(name).content_hash
        assert store.content_hash("gone") is None
        with pytest.raises(RecipeError, match="recipe 'bad'"):
            store.task("bad")


def test_recipes_of_recipes_are_flattened_and_cycles_refused(path):
    add_recipe(path, "half", Recipe({"two": (0.5,)}))
    add_recipe(path, "quarter", Recipe({"half": (0.5,)}))
    with Store.open(path) as store:
        assert store.task("quarter").meta["recipe"]["members"] == {"two": [0.25]}
    with pytest.raises(RecipeCycleError, match="half -> quarter -> half"):
        add_recipe(path, "half", Recipe({"quarter": (1.0,)}), replace=True)


def test_what_a_recipe_is_made_of_stays(path):
    add_recipe(path, "half", Recipe({"two": (0.5,)}))
    with pytest.raises(TaskInUseError, match="'two' is used by recipe 'half'"):
        remove(path, ["three", "two"])
    with Store.open(path) as store:
        assert {"two", "three"} < {*store.tasks}  # all or nothing
    remove(path, ["two", "half"])
    with Store.open(path) as store:
        assert store.tasks == ("five", "three")
        with pytest.raises(TaskNotFoundError):
            store.task("half")


@pytest.mark.parametrize(
    ("name", "recipe", "error", "message"),
    [
        ("two", Recipe({"three": (1.0,)}), TaskExistsError, "already has 'two'"),
        ("new", Recipe({"gone": (1.0,)}), RecipeError, "no task 'gone'"),
        ("new", Recipe({"new": (1.0,)}), RecipeCycleError, "new -> new"),
    ],
)
def test_refusals_change_nothing(path, name, recipe, error, message):
    before = path.read_bytes()
    with pytest.raises(error, match=message):
        add_recipe(path, name, recipe)
    assert path.read_bytes() == before


def test_a_recipe_is_replaced_only_when_asked(path):
    add_recipe(path, "half", Recipe({"two": (0.5,)}))
    with pytest.raises(TaskExistsError, match="use --replace"):
        add_recipe(path, "half", Recipe({"two": (0.75,)}))
    add_recipe(path, "half", Recipe({"two": (0.75,)}), replace=True)
    with Store.open(path) as store:
        assert store.recipes["half"].members == {"two": (0.75,)}


def test_members_that_do_not_go_together_are_refused(zoo, path, tmp_path):
    from nps_store.compress import TaskSource

    bigger = grow(zoo.dense("two"), tmp_path / "grown", 3)
    add(path, [TaskSource("grown", bigger, None)], options=Options(keep=0.2))
    with pytest.raises(UnsupportedTaskError, match="'grown' has a grown vocabulary"):
        add_recipe(path, "x", Recipe({"two": (1.0,), "grown": (1.0,)}))
    half = Options(keep=0.2, dtype="BF16")
    add(path, [TaskSource("bf16", zoo.dense("three"), None)], options=half)
    with pytest.raises(UnsupportedTaskError, match="another dtype"):
        add_recipe(path, "x", Recipe({"two": (1.0,), "bf16": (1.0,)}))
