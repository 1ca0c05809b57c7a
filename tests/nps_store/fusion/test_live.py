"""Merging on a live model: what the search is told is what the merged tasks do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nps_store import LiveBase, Store
from nps_store.calibration import read_rows
from nps_store.compress import Options, compress
from nps_store.errors import CalibrationError
from nps_store.fusion import FusionPlan, LiveMerge, fuse
from nps_store.recipes import MOST_WEIGHTS, Recipe
from nps_store.recipes.merged import groups
from nps_store.recipes.writing import add_recipe

NAMES = ("two", "three")


@pytest.fixture(scope="module")
def path(zoo, tmp_path_factory):
    path = tmp_path_factory.mktemp("fusion") / "all.nps"
    sources = [zoo.source(name, calibrated=False) for name in NAMES]
    compress(zoo.base, sources, path, options=Options(keep=0.3))
    return path


@pytest.fixture(scope="module")
def data(zoo):
    return {name: read_rows(zoo.data(name))[:40] for name in NAMES}


def test_the_loss_is_that_of_the_merged_tasks_in_place(path, data, tmp_path):
    recipe = Recipe({"two": (0.6,), "three": (0.3,)})
    with Store.open(path) as store:
        merge = LiveMerge(store, data)
        assert merge.loss(Recipe(dict.fromkeys(NAMES, (0.0,)))) == pytest.approx(1.0)
        kept = merge.kept(recipe)
        before = merge.loss(recipe)
        assert before == merge.loss(recipe)  # nothing is left in place
    own = tmp_path / "own.nps"
    own.write_bytes(path.read_bytes())
    add_recipe(own, "all", recipe)
    with Store.open(own) as store:
        live = LiveBase.load(store)
        alone, merged, base = {}, {}, {}
        for name in NAMES:
            texts = [row.text for row in LiveMerge(store, data).measured_rows(name)]
            for found, which in ((alone, name), (merged, f"all@{name}")):
                prepared = live.prepare(which)
                live.switch_(prepared)
                found[name] = live.run(prepared, prepared.encode(texts)).double()
            shell = live.prepare(name)
            live.switch_(live.prepare(None))
            ids = shell.encode(texts)
            base[name] = _with_base(live, shell, ids)
        for name in NAMES:
            lost = [float((alone[name] * (alone[name] / other).log()).sum(-1).mean())
                    for other in (merged[name], base[name])]  # fmt: skip
            assert kept[name] == pytest.approx(1 - lost[0] / lost[1], abs=1e-3)


def test_layers_are_counted_in_the_whole_base(path, data, monkeypatch):
    """Also where members change few of them: that is how the recipe will be read."""
    asked = []

    def spy(names, n_groups):
        asked.append([*names])
        return groups(asked[-1], n_groups)

    monkeypatch.setattr("nps_store.fusion.members.groups", spy)
    with Store.open(path) as store:
        merge = LiveMerge(store, data)
        aligned = merge._live._aligned
        for name in [*aligned][1:]:
            del aligned[name]
        merge.learner(3)
        merge.loss(Recipe({"two": (0.2, 0.4), "three": (0.1, 0.3)}))
        assert asked == [[tensor.name for tensor in store.base_tensors]] * 2


def test_a_search_is_no_worse_than_the_mean(path, data):
    with Store.open(path) as store:
        merge = LiveMerge(store, data)
        for plan in (FusionPlan(steps=0, evaluations=24, groups=1), FusionPlan(steps=8, groups=2)):
            fused = fuse(merge, plan)
            assert fused.loss <= merge.loss(Recipe(dict.fromkeys(NAMES, (0.3,))))
            assert np.isfinite(fused.loss)


def test_learned_weights_are_better_than_one_for_all(path, data):
    with Store.open(path) as store:
        merge = LiveMerge(store, data)
        one = fuse(merge, FusionPlan(steps=0, evaluations=0, groups=1))
        learned = fuse(merge, merge.bounded(FusionPlan(steps=40)))
    assert learned.recipe.n_groups > 5
    assert learned.loss < 0.95 * one.loss


def test_the_learners_gradient_is_that_of_its_loss(path, data):
    """By differences, in weights of each member and group; the base is as it was."""
    with Store.open(path) as store:
        merge = LiveMerge(store, data)
        body = merge._live.live.body
        before = body.hash()
        learner = merge.learner(3)
        for each in learner._learners:
            lesson = next(iter(each._lessons))
            each._lessons = iter(lambda lesson=lesson: lesson, None)
        weights = torch.tensor([[0.5, 0.2, 0.4], [0.3, 0.6, 0.1]])
        _, gradient = learner(weights)
        for index in np.ndindex(2, 3):
            step = torch.zeros(2, 3)
            step[index] = 0.05
            above, below = learner(weights + step)[0], learner(weights - step)[0]
            assert float(gradient[index]) == pytest.approx((above - below) / 0.1, rel=0.1, abs=2e-4)
        assert body.hash() == before
        assert not any(p.requires_grad for p in body.module.parameters())


def test_a_plan_is_bounded_by_tensors_and_by_what_a_small_recipe_holds(path, data, monkeypatch):
    with Store.open(path) as store:
        merge = LiveMerge(store, data)
        most = merge.bounded(FusionPlan(groups=1000)).groups
        assert most == len({tensor.name.rpartition(".")[0] for tensor in store.base_tensors})
        monkeypatch.setattr("nps_store.fusion.live.MOST_WEIGHTS", 7)
        assert merge.bounded(FusionPlan()).groups == 3
    assert MOST_WEIGHTS // len(NAMES) >= most


def test_a_member_that_changes_nothing_is_refused(path, data, tmp_path):
    own = tmp_path / "own.nps"
    own.write_bytes(path.read_bytes())
    add_recipe(own, "nothing", Recipe({"two": (0.0,)}))
    with Store.open(own) as store, pytest.raises(CalibrationError, match="those of the base"):
        LiveMerge(store, {"nothing": data["two"]})


def _with_base(live, prepared, ids):
    """Probabilities of the base's body with a task's head."""
    from nps_store.modeling.shell import pad

    with torch.inference_mode():
        return prepared.shell.run(pad(ids, prepared.tokenizer, live.body.device)).double()
