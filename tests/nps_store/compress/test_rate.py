"""Every method, and every way to ask for a rate: by target, fraction, bytes, or not at all."""

from __future__ import annotations

import pytest
import torch

from formats.container import Container
from nps_store.compress import Options, TaskSource, compress
from nps_store.errors import BudgetTooSmallError
from nps_store.store import Store
from nps_store.task import task_nbytes
from tests.nps_store.compress.notes import Notes
from tests.nps_store.models import LABELS, corpus, edit, same, weights, write_rows

METHODS = ["nps", "topk", "dither", "dare", "magnitude"]
QUICK = {"evaluations": 10, "steps": 10}


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
        assert stored.quality.n_examples == 14
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


def test_quality_is_divergence_whether_or_not_there_are_labels(zoo, tmp_path):
    rows = corpus(LABELS["two"], 64, seed=3)
    labelled = write_rows(tmp_path / "l.jsonl", rows)
    bare = write_rows(tmp_path / "b.jsonl", [(text, None) for text, _ in rows])
    for data in (labelled, bare):
        (stored,) = compress(
            zoo.base, [TaskSource("two", zoo.dense("two"), data)], tmp_path / f"{data.stem}.nps",
            options=Options(**QUICK),
        )  # fmt: skip
        assert stored.target == 0.98
        assert stored.quality.measure == "distill"


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
