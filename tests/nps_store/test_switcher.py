"""A user's model is any task of a store on demand, and the base again afterwards."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertModel

from nps_store import TaskSwitcher
from nps_store.compress import Options, TaskSource, add, compress
from nps_store.errors import BaseMismatchError, TaskNotFoundError, UnsupportedTaskError
from nps_store.store import Store
from nps_store.switch import resident
from tests.nps_store.language import make_language
from tests.nps_store.models import edit, grow, same, weights


def scaled(factor):
    return lambda tensors: [tensor.mul_(factor) for tensor in tensors.values()]


@pytest.fixture(scope="module")
def path(zoo, tmp_path_factory):
    """Bodies only: their tensors fit the base's model, whatever the head."""
    root = tmp_path_factory.mktemp("switcher")
    bodies = [
        TaskSource(name, edit(zoo.base, root / name, scaled(factor)))
        for name, factor in (("a", 1.01), ("b", 0.97), ("c", 1.2))
    ]
    compress(zoo.base, bodies[:2], root / "s.nps", options=Options(keep=0.2))
    add(root / "s.nps", bodies[2:], options=Options(method="exact"))
    add(root / "s.nps", [TaskSource("head", zoo.dense("two")),
                         TaskSource("grown", grow(zoo.dense("two"), root / "grown", 2))],
        options=Options(method="exact"))  # fmt: skip
    return root / "s.nps"


@pytest.fixture
def store(path):
    with Store.open(path) as store:
        yield store


def model_of(zoo):
    return BertModel.from_pretrained(zoo.base).eval()


def copied(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("min_entries", [0, resident.MIN_ENTRIES])
def test_every_task_is_in_place_bit_for_bit_and_the_base_after_it(
    zoo, store, monkeypatch, min_entries
):
    monkeypatch.setattr(resident, "MIN_ENTRIES", min_entries)
    model = model_of(zoo)
    before = copied(model)
    expected = {name: store.materialize(name) for name in "abc"}
    order = np.random.default_rng(0)
    with TaskSwitcher(model, store) as switcher:
        assert switcher.current is None
        for _ in range(30):
            name = [*"abc", None][order.integers(4)]
            switcher.switch_(name)
            assert switcher.current == name
            assert same(copied(model), before if name is None else expected[name])
        assert switcher.switch_(name) == 0.0 or name is None
        seen = switcher.statistics
        assert seen.n_prepared == 3
        assert seen.n_evicted == 0
        assert seen.n_switches >= seen.n_hits > 10
        assert seen.prepared_nbytes > 0
        assert seen.copies_nbytes > 0  # of the task that is stored exactly
        assert min(seen.decode_s, seen.pack_s, seen.switch_s, seen.revert_s) > 0
        switcher.switch_("a")
    assert same(copied(model), before)


def test_a_model_with_a_prefix_and_the_tasks_own_head(zoo, store):
    model = AutoModelForSequenceClassification.from_pretrained(zoo.dense("two")).eval()
    model.bert.load_state_dict(BertModel.from_pretrained(zoo.base).state_dict())
    with TaskSwitcher(model, store) as switcher, switcher.using("head") as used:
        assert same(copied(used), weights(zoo.dense("two")))


def test_another_base_is_refused_by_the_first_tensor(zoo, store):
    model = model_of(zoo)
    with torch.no_grad():
        model.encoder.layer[0].attention.self.query.weight[0, 0] += 1
    with pytest.raises(BaseMismatchError, match=r"encoder\.layer\.0\.attention\.self\.query"):
        TaskSwitcher(model, store)


def test_what_does_not_fit_is_refused_and_what_was_there_stays(zoo, store):
    model = model_of(zoo)
    with TaskSwitcher(model, store) as switcher:
        switcher.switch_("a")
        for name, error in {"head": UnsupportedTaskError, "nope": TaskNotFoundError,
                            "grown": UnsupportedTaskError}.items():  # fmt: skip
            with pytest.raises(error):
                switcher.switch_(name)
            assert switcher.current == "a"
            assert same(copied(model), store.materialize("a"))


def test_the_least_recent_goes_when_there_is_no_room(zoo, store):
    with TaskSwitcher(model_of(zoo), store, max_nbytes=0) as switcher:
        for name in ("a", "b", "a"):
            switcher.switch_(name)
        seen = switcher.statistics
        assert (seen.n_prepared, seen.n_evicted, seen.n_hits) == (3, 2, 0)


def test_what_was_fetched_ahead_is_a_hit(zoo, store):
    with TaskSwitcher(model_of(zoo), store) as switcher:
        switcher.prefetch("a", "nope")
        while switcher.statistics.n_prepared < 1:
            pass
        switcher.switch_("a")
        assert switcher.statistics.n_hits == 1
        with pytest.raises(TaskNotFoundError):
            switcher.switch_("nope")


def test_a_task_that_was_replaced_is_prepared_again(zoo, path, tmp_path):
    copy = tmp_path / "s.nps"
    copy.write_bytes(path.read_bytes())
    changed = edit(zoo.base, tmp_path / "new", scaled(1.5))
    with Store.open(copy, base=zoo.base) as store, TaskSwitcher(model_of(zoo), store) as switcher:
        switcher.switch_("a")
        add(copy, [TaskSource("a", changed)], options=Options(method="exact"), replace=True)
        switcher.switch_("a")
        assert not same(copied(switcher.model), weights(changed))
        store.refresh()
        switcher.switch_("a")
        assert same(copied(switcher.model), weights(changed))


def test_threads_see_their_own_task_and_never_half_of_one(zoo, store):
    expected = {name: store.materialize(name) for name in "abc"}
    wrong = []
    with TaskSwitcher(model_of(zoo), store) as switcher:

        def work(seed):
            order = np.random.default_rng(seed)
            for _ in range(15):
                name = "abc"[order.integers(3)]
                with switcher.using(name) as model:
                    if not same(copied(model), expected[name]):
                        wrong.append(name)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_tied_tensor_is_changed_once(tmp_path):
    made = make_language(tmp_path / "qwen2", "qwen2")
    compress(made.base, [TaskSource("t", made.dense)], tmp_path / "s.nps",
             options=Options(method="exact"))  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(made.base).eval()
    wanted = AutoModelForCausalLM.from_pretrained(made.dense).state_dict()
    with Store.open(tmp_path / "s.nps") as store, TaskSwitcher(model, store) as switcher:
        switcher.switch_("t")
        assert same(copied(model), dict(wanted))
