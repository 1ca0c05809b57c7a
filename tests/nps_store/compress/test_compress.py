"""Fine-tunes into a store: every method, every way to ask, every kind of base."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from pathlib import Path

import pytest
import torch

from formats.container import Container
from formats.errors import StoreExistsError
from nps_store.compress import Options, Silent, TaskSource, add, compress
from nps_store.compress import job as job_module
from nps_store.errors import (
    BadOptionError,
    BudgetTooSmallError,
    CalibrationError,
    ModelLoadError,
    NonFiniteWeightError,
    ShapeMismatchError,
    TaskExistsError,
    UnrelatedModelError,
)
from nps_store.evaluate import evaluate_task
from nps_store.store import Store
from nps_store.task import task_nbytes
from tests.nps_store.models import LABELS, cast, corpus, edit, grow, same, weights, write_rows

METHODS = ["nps", "topk", "dither", "dare", "magnitude"]
QUICK = {"evaluations": 10}


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, task, text):
        self.notes.append(f"{task}: {text}")


def distance(store, name, dense):
    """Relative error of the stored task vector."""
    made, wanted = store.materialize(name), weights(dense)
    base = {f"bert.{key}": store.base.tensor(key) for key in store.base.names}
    error = sum(float((made[key] - wanted[key]).square().sum()) for key in base)
    return error / sum(float((wanted[key] - base[key]).square().sum()) for key in base)


@pytest.mark.parametrize("method", METHODS)
def test_a_kept_fraction(zoo, tmp_path, method):
    out = tmp_path / "s.nps"
    (stored,) = compress(zoo.base, [zoo.source("three")], out,
                         options=Options(method=method, keep=0.05, **QUICK))  # fmt: skip
    with Store.open(out) as store:
        assert stored.keep == pytest.approx(0.05, rel=0.02) or method == "nps"
        assert stored.keep <= 0.0501
        meta = store.task("three").meta
        assert meta["method"] == method
        assert meta["calibrated"]
        assert stored.quality.n_examples == 24
        made = store.materialize("three")
        wanted = weights(zoo.dense("three"))
        assert made.keys() == wanted.keys()
        base = weights(zoo.base)
        changed = sum(int((made[f"bert.{key}"] != tensor).sum()) for key, tensor in base.items())
        total = sum(tensor.numel() for tensor in base.values())
        assert 0.9 * stored.keep < changed / total <= stored.keep
        assert made["classifier.weight"] == pytest.approx(wanted["classifier.weight"], abs=0.01)
        assert torch.equal(made["classifier.bias"], wanted["classifier.bias"])


@pytest.mark.parametrize("method", ["nps", "dither", "topk"])
def test_a_quality_target_is_met(zoo, tmp_path, method):
    out = tmp_path / "s.nps"
    (stored,) = compress(zoo.base, [zoo.source("five")], out,
                         options=Options(method=method, target=0.8, **QUICK))  # fmt: skip
    with Store.open(out) as store:
        meta = store.task("five").meta
    assert meta["check"]["value"] >= 0.8 or meta["method"] == "exact"
    assert meta["target"] == stored.target == 0.8
    assert stored.quality.value > 0.5
    assert meta["quality"] == stored.quality.to_json()


def test_default_targets_depend_on_labels(zoo, tmp_path):
    rows = corpus(LABELS["two"], 64, seed=3)
    labelled = write_rows(tmp_path / "l.jsonl", rows)
    bare = write_rows(tmp_path / "b.jsonl", [(text, None) for text, _ in rows])
    for data, target, measure in ((labelled, 0.99, "loss"), (bare, 0.98, "distill")):
        (stored,) = compress(
            zoo.base, [TaskSource("two", zoo.dense("two"), data)], tmp_path / f"{target}.nps",
            options=Options(**QUICK),
        )  # fmt: skip
        assert stored.target == target
        assert stored.quality.measure == measure


def test_a_target_out_of_reach_is_stored_losslessly_and_says_so(zoo, tmp_path, monkeypatch):
    monkeypatch.setattr("nps_store.search.continuation.MAX_KEEP", 0.02)
    for dtype in (None, "BF16"):
        out, notes = tmp_path / f"{dtype}.nps", Notes()
        options = Options(method="magnitude", target=0.9999, dtype=dtype)
        (stored,) = compress(zoo.base, [zoo.source("five")], out, options=options, progress=notes)
        assert "five: target 0.9999 is out of reach" in notes.notes[-1]
        assert stored.keep == 1
        assert stored.quality.value == pytest.approx(1, abs=0.01 if dtype else 1e-6)
        wanted = weights(zoo.dense("five"))
        if dtype:
            wanted = {name: tensor.bfloat16() for name, tensor in wanted.items()}
        with Store.open(out) as store:
            assert store.task("five").meta["method"] == "exact"
            assert same(store.materialize("five"), wanted)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [9_000, 14_000])
def test_a_byte_budget_holds_everything_included(zoo, tmp_path, method, budget):
    out = tmp_path / "s.nps"
    long_name = "a task whose name takes its bytes too " * 5
    source = TaskSource(long_name, zoo.dense("three"), zoo.data("three"))
    (stored,) = compress(zoo.base, [source], out,
                         options=Options(method=method, max_nbytes=budget, **QUICK))  # fmt: skip
    with Container.open(out) as container:
        actual = task_nbytes(container, long_name)
    assert stored.nbytes == actual <= budget
    assert actual > 0.6 * budget or stored.keep > 0.5


def test_a_byte_budget_without_data(zoo, tmp_path):
    (stored,) = compress(zoo.base, [zoo.source("three", calibrated=False)], tmp_path / "s.nps",
                         options=Options(max_nbytes=10_000))  # fmt: skip
    assert 6_000 < stored.nbytes <= 10_000
    assert stored.quality is None


def test_a_budget_for_nothing_is_refused(zoo, tmp_path):
    with pytest.raises(BudgetTooSmallError, match="fits 900 bytes"):
        compress(zoo.base, [zoo.source("three")], tmp_path / "s.nps",
                 options=Options(max_nbytes=900))  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_generous_budget_takes_what_it_needs(zoo, tmp_path):
    (stored,) = compress(zoo.base, [zoo.source("three", calibrated=False)], tmp_path / "s.nps",
                         options=Options(max_nbytes=10_000_000))  # fmt: skip
    assert stored.keep > 0.5


def test_without_data_a_safe_rate_is_kept_and_said(zoo, tmp_path):
    notes = Notes()
    (stored,) = compress(zoo.base, [zoo.source("two", calibrated=False)], tmp_path / "s.nps",
                         progress=notes)  # fmt: skip
    assert stored.keep == pytest.approx(0.04, rel=0.01)
    assert (stored.quality, stored.target) == (None, None)
    assert "no calibration data" in notes.notes[0]
    with Store.open(tmp_path / "s.nps") as store:
        meta = store.task("two").meta
    assert not meta["calibrated"]
    assert meta["quality"] is None


@pytest.mark.parametrize("keep", [0.001, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("method", ["dither", "magnitude"])
def test_the_error_falls_with_the_rate(zoo, tmp_path, method, keep):
    compress(zoo.base, [zoo.source("five", calibrated=False)], tmp_path / "s.nps",
             options=Options(method=method, keep=keep))  # fmt: skip
    with Store.open(tmp_path / "s.nps") as store:
        error = distance(store, "five", zoo.dense("five"))
    assert error < {0.001: 1000 if method == "dither" else 1, 0.1: 6, 0.5: 0.4, 1.0: 0.01}[keep]


def test_a_fine_tune_of_a_few_tensors_keeps_them_well(zoo, tmp_path):
    """Fewer elements differ than are kept: all of them are, in as fine a step as levels allow."""

    def change(tensors):
        for name, tensor in tensors.items():
            if name.endswith("bias"):
                tensor.add_(torch.randn(tensor.shape) * 0.05)

    torch.manual_seed(0)
    task = edit(zoo.base, tmp_path / "task", change)
    compress(zoo.base, [TaskSource("t", task)], tmp_path / "s.nps", options=Options(keep=0.2))
    with Store.open(tmp_path / "s.nps") as store:
        made, wanted = store.materialize("t"), weights(task)
    error = max(float((made[name] - tensor).abs().max()) for name, tensor in wanted.items())
    assert error < 0.004


@pytest.mark.parametrize("base_dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("task_dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_bases_and_tasks_of_other_dtypes(zoo, tmp_path, base_dtype, task_dtype):
    base = cast(zoo.base, tmp_path / "base", base_dtype)
    task = cast(zoo.dense("two"), tmp_path / "task", task_dtype)
    (stored,) = compress(base, [TaskSource("two", task, zoo.data("two"))], tmp_path / "s.nps",
                         options=Options(keep=0.3, **QUICK))  # fmt: skip
    assert stored.quality.value > 0.5
    with Store.open(tmp_path / "s.nps") as store:
        made = store.materialize("two")
        body = {made[name].dtype for name in made if name.startswith("bert.")}
        assert body == {base_dtype}
        assert evaluate_task(store, "two", data=zoo.data("two")).stored > 0.8


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_compressing_for_another_dtype(zoo, tmp_path, dtype):
    compress(zoo.base, [zoo.source("two")], tmp_path / "s.nps",
             options=Options(keep=0.2, dtype=dtype, **QUICK))  # fmt: skip
    with Store.open(tmp_path / "s.nps") as store:
        assert store.task("two").dtype == dtype
        name = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[dtype]
        assert {tensor.dtype for tensor in store.materialize("two").values()} == {name}
        assert evaluate_task(store, "two", data=zoo.data("two")).stored > 0.8


@pytest.mark.parametrize("embed", [False, True])
def test_grown_vocabularies_are_calibrated_and_stored(zoo, tmp_path, embed):
    task = grow(zoo.dense("two"), tmp_path / "grown", 3)
    rows = [
        (f"new{len(text) % 3} {text}", label) for text, label in corpus(LABELS["two"], 40, seed=2)
    ]
    data = write_rows(tmp_path / "d.jsonl", rows)
    (stored,) = compress(zoo.base, [TaskSource("grown", task, data)], tmp_path / "s.nps",
                         options=Options(keep=0.3, **QUICK), embed_base=embed)  # fmt: skip
    assert stored.quality.value > 0.5
    name = "bert.embeddings.word_embeddings.weight"
    with Store.open(tmp_path / "s.nps") as store:
        made = store.materialize("grown")[name]
    wanted = weights(task)[name]
    assert made.shape == wanted.shape
    assert made[-3:] == pytest.approx(wanted[-3:], abs=0.02)


def test_a_base_without_a_pooler_that_the_task_brings(zoo, tmp_path):
    """What the base's body lacks is in place while candidates are tried."""

    def drop(tensors):
        for name in [name for name in tensors if name.startswith("pooler")]:
            del tensors[name]

    base = edit(zoo.base, tmp_path / "base", drop)
    (stored,) = compress(base, [zoo.source("two")], tmp_path / "s.nps",
                         options=Options(method="dither", target=0.7))  # fmt: skip
    with Store.open(tmp_path / "s.nps") as store:
        assert store.task("two").meta["method"] == "dither"
        assert evaluate_task(store, "two", data=zoo.data("two")).stored > 0.8
    assert stored.quality.value > 0.5


def test_a_head_that_the_base_has_takes_part(zoo, tmp_path):
    task = edit(zoo.dense("two"), tmp_path / "task", lambda t: t["classifier.weight"].mul_(-1))
    rows = [(text, LABELS["two"][1 - LABELS["two"].index(label)])
            for text, label in corpus(LABELS["two"], 40, seed=6)]  # fmt: skip
    data = write_rows(tmp_path / "d.jsonl", rows)
    (stored,) = compress(zoo.dense("two"), [TaskSource("t", task, data)], tmp_path / "s.nps",
                         options=Options(method="magnitude", keep=0.01))  # fmt: skip
    assert stored.quality.value > 0.99


@pytest.mark.parametrize("objective", ["distill", "loss", "accuracy"])
def test_objectives(zoo, tmp_path, objective):
    (stored,) = compress(zoo.base, [zoo.source("two")], tmp_path / "s.nps",
                         options=Options(keep=0.1, objective=objective, **QUICK))  # fmt: skip
    assert stored.quality.measure == "loss"
    with Store.open(tmp_path / "s.nps") as store:
        assert store.task("two").meta["objective"] == objective


def test_vectors_of_an_embedding_model_are_calibrated(zoo, tmp_path):
    torch.manual_seed(1)
    task = edit(zoo.base, tmp_path / "task",
                lambda t: [v.add_(torch.randn(v.shape) * 0.05) for v in t.values()])  # fmt: skip
    data = write_rows(tmp_path / "d.jsonl", [(text, None) for text, _ in corpus("a", 30, seed=1)])
    (stored,) = compress(zoo.base, [TaskSource("t", task, data)], tmp_path / "s.nps",
                         options=Options(target=0.5, **QUICK))  # fmt: skip
    assert stored.quality.measure == "distill"
    assert stored.quality.value > 0.3


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


# --- what is refused, and what is left behind -------------------------------------------------


def poison(value):
    return lambda tensors: tensors["classifier.bias"].fill_(value)


def bad_directories(zoo, root):
    """Fine-tunes that must be refused, with the error."""
    reshaped = "bert.encoder.layer.0.output.dense.bias"
    yield edit(zoo.dense("two"), root / "nan", poison(float("nan"))), NonFiniteWeightError
    yield edit(zoo.dense("two"), root / "inf", poison(float("inf"))), NonFiniteWeightError
    yield (
        edit(zoo.dense("two"), root / "shape", lambda t: t.update({reshaped: torch.zeros(7)})),
        ShapeMismatchError,
    )
    yield (
        edit(zoo.dense("two"), root / "other", lambda t: [t.pop(n) for n in list(t)[2:]]),
        UnrelatedModelError,
    )


def test_bad_fine_tunes_are_refused_before_any_work(zoo, tmp_path, monkeypatch):
    cases = list(bad_directories(zoo, tmp_path))
    monkeypatch.setattr(job_module, "decide", None)  # would fail if any work began
    out = tmp_path / "out"
    out.mkdir()
    for directory, error in cases:
        with pytest.raises(error, match=str(directory)):
            compress(zoo.base, [zoo.source("three"), TaskSource("bad", directory)], out / "s.nps")
        assert list(out.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_base_that_is_not_finite_is_refused(zoo, tmp_path, value):
    base = edit(zoo.base, tmp_path / "b", lambda t: t["pooler.dense.bias"].fill_(value))
    with pytest.raises(NonFiniteWeightError, match=r"pooler\.dense\.bias"):
        compress(base, [zoo.source("two")], tmp_path / "s.nps")
    assert not (tmp_path / "s.nps").exists()


OPTIONS = [
    {"target": 0.9, "keep": 0.1},
    {"keep": 0.1, "max_nbytes": 1000},
    {"method": "exact", "keep": 0.5},
    {"method": "exact", "dtype": "BF16"},
    {"method": "nope"},
    {"target": 0},
    {"target": 1.5},
    {"target": math.nan},
    {"keep": -0.1},
    {"keep": 2},
    {"max_nbytes": 0},
    {"dtype": "I8"},
    {"evaluations": -1},
    {"search_seconds": 0},
    {"search_seconds": math.nan},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_options_that_make_no_sense(options):
    with pytest.raises(BadOptionError):
        Options(**options)


def test_a_target_without_data_is_refused(zoo, tmp_path):
    with pytest.raises(BadOptionError, match="--calib two=FILE"):
        compress(zoo.base, [zoo.source("two", calibrated=False)], tmp_path / "s.nps",
                 options=Options(target=0.9))  # fmt: skip


@pytest.mark.parametrize("name", ["", "a\nb", "a\0b", "x" * 5000, "\ud800"])
def test_names_that_cannot_be_shown_are_refused(zoo, tmp_path, name):
    with pytest.raises(BadOptionError, match="task name"):
        compress(zoo.base, [TaskSource(name, zoo.dense("two"))], tmp_path / "s.nps")


@pytest.mark.parametrize("name", ["section/admin", "über", "a b", "../x", "."])
def test_other_names_are_just_names(zoo, tmp_path, name):
    compress(zoo.base, [TaskSource(name, zoo.dense("two"))], tmp_path / "s.nps",
             options=Options(keep=0.01))  # fmt: skip
    with Store.open(tmp_path / "s.nps") as store:
        assert store.tasks == (name,)


def test_places_that_cannot_be_written_are_refused(zoo, tmp_path):
    source = [zoo.source("two", calibrated=False)]
    for out in (tmp_path / "none" / "s.nps", tmp_path):
        with pytest.raises(BadOptionError):
            compress(zoo.base, source, out, overwrite=True)
    (tmp_path / "s.nps").write_text("mine")
    with pytest.raises(StoreExistsError):
        compress(zoo.base, source, tmp_path / "s.nps")
    assert (tmp_path / "s.nps").read_text() == "mine"


def test_calibration_that_cannot_be_used(zoo, tmp_path):
    cases = {
        "needs": ([("a", None)] * 4, Options(objective="loss")),
        "at least 2": ([("a", "a")], Options()),
        "label 'nope'": ([("a", "nope")] * 4, Options()),
    }
    for number, (text, (rows, options)) in enumerate(cases.items()):
        data = write_rows(tmp_path / f"{number}.jsonl", rows)
        with pytest.raises(CalibrationError, match=text):
            compress(zoo.base, [TaskSource("two", zoo.dense("two"), data)], tmp_path / "s.nps",
                     options=options)  # fmt: skip
    assert not (tmp_path / "s.nps").exists()


def test_two_examples_suffice(zoo, tmp_path):
    data = write_rows(tmp_path / "d.jsonl", corpus(LABELS["two"], 2, seed=0))
    (stored,) = compress(zoo.base, [TaskSource("two", zoo.dense("two"), data)],
                         tmp_path / "s.nps", options=Options(keep=0.1, **QUICK))  # fmt: skip
    assert stored.quality.n_examples >= 1


def test_a_checkpoint_without_its_head_is_refused_by_name(zoo, tmp_path):
    task = edit(zoo.dense("two"), tmp_path / "task", lambda t: t.pop("classifier.bias"))
    with pytest.raises(ModelLoadError, match=r"classifier\.bias"):
        compress(zoo.base, [TaskSource("two", task, zoo.data("two"))], tmp_path / "s.nps")
    assert not (tmp_path / "s.nps").exists()


def test_taken_names_are_refused(zoo, tmp_path):
    out = tmp_path / "s.nps"
    source = zoo.source("two", calibrated=False)
    with pytest.raises(TaskExistsError, match="'two' is named twice"):
        compress(zoo.base, [source, source], out)
    compress(zoo.base, [source], out, options=Options(keep=0.01))
    before = out.read_bytes()
    with pytest.raises(TaskExistsError, match="--replace"):
        add(out, [zoo.source("three", calibrated=False), source])
    assert out.read_bytes() == before


def test_all_tasks_of_one_call_appear_together_or_none(zoo, tmp_path, monkeypatch):
    out = tmp_path / "s.nps"
    compress(zoo.base, [zoo.source("two", calibrated=False)], out, options=Options(keep=0.01))
    before = out.read_bytes()
    write = job_module.TaskSink.write
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()

    def fail(self, writer, fine_tune, encoded, **options):
        if fine_tune.name == "five" and "scratch" not in str(writer.path):
            raise KeyboardInterrupt
        return write(self, writer, fine_tune, encoded, **options)

    monkeypatch.setattr(job_module.TaskSink, "write", fail)
    sources = [zoo.source(name, calibrated=False) for name in ("three", "five")]
    for run in (
        lambda: add(out, sources, options=Options(keep=0.01)),
        lambda: compress(zoo.base, sources, tmp_path / "n.nps", options=Options(keep=0.01)),
        lambda: compress(zoo.base, sources, out, options=Options(keep=0.01), overwrite=True),
    ):
        with pytest.raises(KeyboardInterrupt):
            run()
        assert out.read_bytes() == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["s.nps", "tmp"]
        assert list((tmp_path / "tmp").iterdir()) == []
    with Store.open(out) as store:
        assert store.tasks == ("two",)


def test_add_finds_the_base_where_it_was_or_where_it_is_said_to_be(zoo, tmp_path):
    base = shutil.copytree(zoo.base, tmp_path / "base")
    out = tmp_path / "s.nps"
    quick = Options(keep=0.01)
    compress(base, [zoo.source("two", calibrated=False)], out, options=quick)
    add(out, [zoo.source("three", calibrated=False)], options=quick)
    shutil.move(base, tmp_path / "moved")
    add(out, [zoo.source("five", calibrated=False)], base=tmp_path / "moved", options=quick)
    with Container.open(out) as container:
        assert sorted(container.root.tasks) == ["five", "three", "two"]
    assert Path(out).stat().st_size < 80_000
