"""Seeds, budgets of time, and the record of how a task was compressed."""

from __future__ import annotations

import time

from nps_store.compress import Options, TaskSource, add, compress
from nps_store.store import Store
from tests.nps_store.models import edit, same

QUICK = {"evaluations": 10, "steps": 10}


def test_equal_seeds_give_equal_weights_and_others_do_not(zoo, tmp_path):
    made = []
    for number, seed in enumerate([0, 0, 1]):
        out = tmp_path / f"{number}.nps"
        compress(zoo.base, [zoo.source("two")], out, options=Options(keep=0.05, seed=seed, **QUICK))
        with Store.open(out) as store:
            made.append(store.materialize("two"))
    assert same(made[0], made[1])
    assert not same(made[0], made[2])


def test_tasks_do_not_share_their_dither(zoo, tmp_path):
    tasks = [TaskSource(name, zoo.dense("two")) for name in ("a", "b")]
    compress(zoo.base, tasks, tmp_path / "s.nps", options=Options(keep=0.05, method="dither"))
    with Store.open(tmp_path / "s.nps") as store:
        assert not same(store.materialize("a"), store.materialize("b"))


def test_search_seconds_are_honoured(zoo, tmp_path):
    began = time.monotonic()
    (stored,) = compress(
        zoo.base, [zoo.source("two")], tmp_path / "s.nps",
        options=Options(target=0.9, evaluations=100_000, search_seconds=1.0),
    )  # fmt: skip
    assert time.monotonic() - began < 8
    assert stored.seconds > 0.9


def test_the_record_says_where_a_task_came_from(zoo, tmp_path):
    compress(zoo.base, [zoo.source("two")], tmp_path / "s.nps", options=Options(keep=0.1, **QUICK))
    add(tmp_path / "s.nps", [TaskSource("again", zoo.dense("two"))], options=Options(keep=0.1))
    other = edit(zoo.dense("two"), tmp_path / "two", lambda t: t["classifier.bias"].add_(1))
    add(tmp_path / "s.nps", [TaskSource("other", other)], options=Options(keep=0.1))
    with Store.open(tmp_path / "s.nps") as store:
        two, again, other = (store.task(name).meta for name in ("two", "again", "other"))
    assert two["tool"].startswith("nps-store ")
    assert two["source"] == again["source"]
    assert two["source"]["hash"] != other["source"]["hash"]
    assert two["n_evaluations"] > 0
    assert "log_weights" in two
    assert two["seed"] == 0
