"""Both sides of a transfer, measured on a live model and from the stored recipe."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nps_store import LiveBase, Store
from nps_store.calibration import read_rows
from nps_store.compress import Options, compress
from nps_store.errors import CalibrationError
from nps_store.recipes import BANDS, N_BANDS, Recipe, band_params
from nps_store.recipes.writing import add_recipe
from nps_store.transfer import LiveTransfer, TransferPlan, transfer

NEUTRAL = np.ones(N_BANDS)


@pytest.fixture(scope="module")
def path(zoo, tmp_path_factory):
    path = tmp_path_factory.mktemp("transfer") / "all.nps"
    source = zoo.source("two", calibrated=False)
    compress(zoo.base, [source], path, options=Options(keep=0.3))
    return path


@pytest.fixture(scope="module")
def data(zoo):
    return {name: read_rows(zoo.data(name))[:40] for name in ("two", "three")}


def recipe(live, *layers, bands=NEUTRAL):
    return Recipe({"two": layers}, BANDS, band_params(live.edges, bands.tolist()))


def test_the_ends_keep_their_own_side(path, data):
    with Store.open(path) as store:
        live = LiveTransfer(store, "two", data["two"], {"old": data["three"]})
        base, task = live.kept(recipe(live, 0.0)), live.kept(recipe(live, 1.0))
        assert (base.task, base.base, base.balance) == (0.0, {"old": 1.0}, 0.0)
        assert (task.task, task.base, task.balance) == (1.0, {"old": 0.0}, 0.0)
        half = live.kept(recipe(live, 0.5))
        assert 0 < half.balance < 1
        assert live.loss(recipe(live, 0.5)) == live.loss(recipe(live, 0.5))  # nothing is left
        assert 0 < live.loss(recipe(live, 0.5)) < 1


def test_bands_divide_what_the_task_changes(path, data):
    with Store.open(path) as store:
        live = LiveTransfer(store, "two", data["two"], {"old": data["three"]})
        counts = [
            sum(int((patch.delta() != 0).sum()) for _, patch in live.changes(one))
            for one in (recipe(live, 1.0, bands=row) for row in np.eye(N_BANDS))
        ]
        whole = sum(int((p.delta() != 0).sum()) for _, p in live.changes(recipe(live, 1.0)))
        assert sum(counts) == whole > 0
        assert sum(count > 0 for count in counts) > 1
        assert list(live.edges) == sorted(live.edges)


def test_what_is_kept_is_that_of_the_stored_recipe(path, data, tmp_path):
    own = tmp_path / "own.nps"
    own.write_bytes(path.read_bytes())
    with Store.open(own) as store:
        live = LiveTransfer(store, "two", data["two"], {"old": data["three"]})
        made = recipe(live, 0.4, 0.8, bands=np.linspace(0.5, 1.5, N_BANDS))
        expected = {name: patch.delta() for name, patch in live.changes(made)}
    assert add_recipe(own, "part", made) == ("part",)
    with Store.open(own) as store:
        base = LiveBase.load(store)
        before = base.body.hash()
        prepared = base.prepare("part")
        base.switch_(prepared)
        assert base.body.hash() != before
        assert base.verify()
        stored = {c.base: c.patch for c in store.changes("part") if c.base is not None}
        assert stored.keys() == expected.keys()
        for name, delta in expected.items():
            assert torch.equal(stored[name].added(lambda: None), delta)


def test_a_search_is_no_worse_than_lambda(path, data):
    with Store.open(path) as store:
        live = LiveTransfer(store, "two", data["two"], {"old": data["three"]})
        found = transfer(live, live.bounded(TransferPlan(evaluations=20, groups=99)))
        assert found.loss <= live.loss(recipe(live, 0.5))
        assert len(found.recipe.members["two"]) < 99


def test_a_task_that_is_the_base_is_refused(path, data, tmp_path):
    own = tmp_path / "own.nps"
    own.write_bytes(path.read_bytes())
    add_recipe(own, "nothing", Recipe({"two": (0.0,)}))
    with Store.open(own) as store, pytest.raises(CalibrationError, match="those of the base"):
        LiveTransfer(store, "nothing", data["two"], {"old": data["three"]})
