"""A store gives back what was put into it, and shows what others do to it."""

from __future__ import annotations

import json
import shutil
import threading

import pytest
import torch

from formats.errors import BadMagicError, TaskNotFoundError
from formats.writer import ContainerWriter, compact
from nps_store.compress import Options, TaskSource, add, compress
from nps_store.errors import BaseMismatchError, BaseNotFoundError
from nps_store.store import Store
from tests.nps_store.models import LABELS, cast, edit, fine_tune, grow, same, shard, weights

EXACT = Options(method="exact")


def exact(base, directory, path, **options):
    compress(base, [TaskSource("task", directory)], path, options=EXACT, **options)
    return Store.open(path)


@pytest.fixture(scope="module")
def path(zoo, tmp_path_factory):
    """An exact store of all tasks, not to be changed."""
    path = tmp_path_factory.mktemp("exact") / "all.nps"
    names = ("two", "three", "five")
    compress(zoo.base, [zoo.source(n, calibrated=False) for n in names], path, options=EXACT)
    return path


@pytest.fixture
def own(path, tmp_path):
    return shutil.copy(path, tmp_path / "own.nps")


@pytest.mark.parametrize("name", ["two", "three", "five"])
def test_exact_is_the_fine_tune_bit_for_bit(zoo, path, name):
    with Store.open(path) as store:
        assert same(store.materialize(name), weights(zoo.dense(name)))
        for file in ("config.json", "tokenizer.json", "vocab.txt"):
            assert store.files(name).read(file) == (zoo.dense(name) / file).read_bytes()
        assert store.files(name).read("nothing") is None
        assert set(store.task(name).config["id2label"].values()) == set(LABELS[name])


def test_facts(zoo, path):
    with Store.open(path) as store:
        assert store.tasks == ("five", "three", "two")
        assert store.base_name == "base"
        assert store.nbytes == path.stat().st_size
        assert {t.name for t in store.base_tensors} == set(weights(zoo.base))
        assert "tasks=3" in repr(store)
        task = store.task("two")
        assert task.dense_nbytes == sum(t.nbytes for t in weights(zoo.dense("two")).values())
        assert task.dtype == "F32"
        assert task.meta["method"] == "exact"
        assert "two" in repr(task)
        with pytest.raises(TaskNotFoundError, match="'nope'"):
            store.materialize("nope")


VARIANTS = {
    "base in bf16, task in bf16": (torch.bfloat16, torch.bfloat16),
    "base in f16, task in f16": (torch.float16, torch.float16),
    "base in f32, task in bf16": (None, torch.bfloat16),
    "base in bf16, task in f32": (torch.bfloat16, None),
    "base in f64, task in f64": (torch.float64, torch.float64),
}


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_exact_whatever_the_dtypes(zoo, tmp_path, variant):
    base_dtype, task_dtype = VARIANTS[variant]
    base, task = zoo.base, zoo.dense("two")
    if base_dtype:
        base = cast(base, tmp_path / "base", base_dtype)
    if task_dtype:
        task = cast(task, tmp_path / "task", task_dtype)
    with exact(base, task, tmp_path / "s.nps") as store:
        assert same(store.materialize("task"), weights(task))


def with_extras(tensors):
    tensors["bert.scalar"] = torch.tensor(2.5)
    tensors["bert.empty"] = torch.empty(0, 4)
    tensors["bert.counts"] = torch.arange(6, dtype=torch.int64)
    tensors["bert.flags"] = torch.tensor([True, False])


@pytest.mark.parametrize("in_base", [True, False])
def test_exact_with_scalars_empty_tensors_integers_and_flags(zoo, tmp_path, in_base):
    base = zoo.base
    if in_base:
        base = edit(base, tmp_path / "base", lambda t: with_extras(t) or [
            t.__setitem__(name.removeprefix("bert."), t.pop(name))
            for name in [n for n in t if n.startswith("bert.")]
        ])  # fmt: skip

    def change(tensors):
        with_extras(tensors)
        tensors["bert.counts"][2] = -9
        tensors["bert.scalar"] += 1

    task = edit(zoo.dense("two"), tmp_path / "task", change)
    with exact(base, task, tmp_path / "s.nps") as store:
        assert same(store.materialize("task"), weights(task))


def test_exact_with_a_grown_vocabulary(zoo, tmp_path):
    task = grow(zoo.dense("two"), tmp_path / "grown", 3)
    with exact(zoo.base, task, tmp_path / "s.nps") as store:
        assert same(store.materialize("task"), weights(task))


@pytest.mark.parametrize("n_labels", [2, 3])
def test_exact_over_a_base_that_has_a_head(zoo, tmp_path, n_labels):
    labels = ("a", "tool", "game")[:n_labels]
    task = fine_tune(tmp_path / "task", zoo.base, labels, steps=3)
    with exact(zoo.dense("two"), task, tmp_path / "s.nps") as store:
        assert same(store.materialize("task"), weights(task))
        assert not any(change.rows is not None for change in store.changes("task"))


@pytest.mark.parametrize("method", ["exact", "dither"])
def test_a_bare_body_over_a_base_that_has_a_head(zoo, tmp_path, method):
    """Its names lack the base's prefix, for tensors that it changes and for those it does not."""

    def change(tensors):
        tensors["encoder.layer.0.output.dense.weight"][0, 0] += 0.5

    task = edit(zoo.base, tmp_path / "task", change)
    base = edit(zoo.dense("two"), tmp_path / "base", lambda tensors: tensors.update(
        {f"bert.{name}": tensor for name, tensor in weights(zoo.base).items()}
    ))  # fmt: skip
    compress(base, [TaskSource("task", task)], tmp_path / "s.nps", options=Options(method=method))
    with Store.open(tmp_path / "s.nps") as store:
        made, expected = store.materialize("task"), weights(task)
        assert made.keys() == expected.keys()
        if method == "exact":
            assert same(made, expected)


def test_a_task_that_lacks_tensors_of_the_base(zoo, tmp_path):
    def change(tensors):
        for name in [name for name in tensors if "pooler" in name]:
            del tensors[name]

    task = edit(zoo.dense("two"), tmp_path / "task", change)
    with exact(zoo.base, task, tmp_path / "s.nps") as store:
        assert same(store.materialize("task"), weights(task))


def test_a_task_equal_to_the_base_costs_next_to_nothing(zoo, tmp_path):
    for method in ("exact", "nps", "dither"):
        path = tmp_path / f"{method}.nps"
        compress(zoo.base, [TaskSource("task", zoo.base)], path, options=Options(method=method))
        with Store.open(path) as store:
            assert same(store.materialize("task"), weights(zoo.base))
            assert list(store.changes("task")) == []
            assert len(list(store.unchanged("task"))) == len(weights(zoo.base))
            assert store.task("task").nbytes < 2000


def test_only_what_changed_is_stored(zoo, tmp_path):
    name = "encoder.layer.1.output.dense.weight"
    task = edit(zoo.base, tmp_path / "task", lambda tensors: tensors[name].add_(1))
    with exact(zoo.base, task, tmp_path / "s.nps") as store:
        assert [change.name for change in store.changes("task")] == [name]
        assert [c.name for c in store.unchanged("task", {name, "pooler.dense.bias"})] == [
            "pooler.dense.bias"
        ]


@pytest.mark.parametrize("sharded", [True, False])
def test_an_embedded_base_needs_no_directory(zoo, tmp_path, sharded):
    base = tmp_path / "base"
    shard(zoo.base, base) if sharded else shutil.copytree(zoo.base, base)
    compress(base, [zoo.source("two", calibrated=False)], tmp_path / "s.nps",
             options=EXACT, embed_base=True)  # fmt: skip
    moved = shutil.move(tmp_path / "s.nps", tmp_path / "elsewhere.nps")
    shutil.rmtree(base)
    with Store.open(moved) as store:
        assert same(store.materialize("two"), weights(zoo.dense("two")))
        assert same({n: store.base.tensor(n) for n in store.base.names}, weights(zoo.base))
        assert store.base.config == json.loads((zoo.base / "config.json").read_text())
        files = store.base.files()
        assert files["vocab.txt"].read_bytes() == (zoo.base / "vocab.txt").read_bytes()
        directory = files["vocab.txt"].parent
        tokenizer = (zoo.dense("two") / "tokenizer.json").read_bytes()
        assert store.files("two").read("tokenizer.json") == tokenizer
    with Store.open(moved, base=zoo.base) as store:
        assert same(store.materialize("two"), weights(zoo.dense("two")))
    del store, files
    assert not directory.exists()


def test_another_base_is_refused_by_the_first_tensor_that_differs(zoo, path, tmp_path):
    name = "encoder.layer.0.intermediate.dense.weight"
    later = "pooler.dense.weight"

    def nudge(tensors):
        tensors[later] += 1
        tensors[name][3, 3] = torch.nextafter(tensors[name][3, 3], torch.tensor(9.0))

    other = edit(zoo.base, tmp_path / "other", nudge)
    with pytest.raises(BaseMismatchError, match=f"tensor '{name}' differs"):
        Store.open(path, base=other)

    cases = {
        "an additional 'aaa'": lambda tensors: tensors.update(aaa=torch.zeros(1)),
        f"no '{later}'": lambda tensors: tensors.pop(later),
        f"tensor '{later}' differs: expected F32": lambda tensors: tensors.update(
            {later: tensors[later].half()}
        ),
    }
    for number, (text, change) in enumerate(cases.items()):
        other = edit(zoo.base, tmp_path / f"other{number}", change)
        with pytest.raises(BaseMismatchError, match=text):
            Store.open(path, base=other)


def test_a_base_that_is_gone(zoo, tmp_path):
    base = shutil.copytree(zoo.base, tmp_path / "base")
    path = tmp_path / "s.nps"
    compress(base, [zoo.source("two", calibrated=False)], path, options=EXACT)
    shutil.move(base, tmp_path / "moved")
    with pytest.raises(BaseNotFoundError, match="--base"):
        Store.open(path)
    with pytest.raises(BaseNotFoundError, match="nowhere"):
        Store.open(path, base=tmp_path / "nowhere")
    with Store.open(path, base=tmp_path / "moved") as store:
        assert store.tasks == ("two",)


def test_a_relative_base_moves_with_the_store(zoo, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    shutil.copytree(zoo.base, here / "base")
    monkeypatch.chdir(here)
    compress("base", [zoo.source("two", calibrated=False)], "s.nps", options=EXACT)
    monkeypatch.chdir(tmp_path)
    shutil.move(here, tmp_path / "there")
    with Store.open("there/s.nps") as store:
        assert store.tasks == ("two",)


def test_what_is_no_store(tmp_path):
    with pytest.raises(FileNotFoundError):
        Store.open(tmp_path / "none.nps")
    (tmp_path / "text").write_text("hello\n" * 5000)
    with pytest.raises(BadMagicError):
        Store.open(tmp_path / "text")


def test_refresh_shows_what_others_did(zoo, own):
    with Store.open(own) as store:
        assert not store.refresh()
        before = store.task("two").content_hash
        with ContainerWriter.open(own) as writer:
            writer.remove_task("three")
            writer.commit()
        assert store.tasks == ("five", "three", "two")  # until it is asked
        assert same(store.materialize("three"), weights(zoo.dense("three")))
        assert store.refresh()
        assert store.tasks == ("five", "two")

        add(own, [TaskSource("two", zoo.dense("three"))], options=EXACT, replace=True)
        add(own, [TaskSource("new", zoo.dense("five"))], options=EXACT)
        assert store.refresh()
        assert store.tasks == ("five", "new", "two")
        assert store.task("two").content_hash != before
        assert same(store.materialize("two"), weights(zoo.dense("three")))

        compact(own)
        store.refresh()
        assert same(store.materialize("new"), weights(zoo.dense("five")))
        assert not store.refresh()


def test_refresh_sees_a_store_made_anew_in_the_same_place(zoo, tmp_path):
    """Both are generation 1 of their file."""
    path = tmp_path / "s.nps"
    with exact(zoo.base, zoo.dense("two"), path) as store:
        compress(zoo.base, [TaskSource("task", zoo.dense("five"))], path,
                 options=EXACT, overwrite=True)  # fmt: skip
        assert same(store.materialize("task"), weights(zoo.dense("two")))
        assert store.refresh()
        assert same(store.materialize("task"), weights(zoo.dense("five")))


def test_readers_and_a_writer_at_once(zoo, own):
    expected = weights(zoo.dense("five"))
    wrong = []

    def read():
        with Store.open(own) as store:
            for _ in range(10):
                store.refresh()
                if not same(store.materialize("five"), expected):
                    wrong.append(store.generation)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(4):
        add(own, [TaskSource("two", zoo.dense("two"))], options=EXACT, replace=True)
    for reader in readers:
        reader.join()
    assert wrong == []


def test_tensors_belong_to_the_caller(path):
    with Store.open(path) as store:
        first = store.materialize("two")
        for tensor in first.values():
            tensor.zero_()
        assert not same(store.materialize("two"), first)
