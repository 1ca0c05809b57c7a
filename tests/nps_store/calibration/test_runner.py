"""Outputs come back in the order of the examples, whatever the batches."""

from __future__ import annotations

import pytest
import torch

from nps_store.calibration import Examples, Row, Runner
from nps_store.calibration import runner as module
from nps_store.checkpoint import Checkpoint
from nps_store.errors import CalibrationError
from nps_store.modeling import Body, Shell
from nps_store.modeling.shell import load_tokenizer
from tests.nps_store.models import LABELS, corpus, probabilities


@pytest.fixture(scope="module")
def model(zoo):
    checkpoint = Checkpoint(zoo.dense("three"))
    shell = Shell(checkpoint.config, Body(checkpoint), pooling=None)
    shell.load_head_({name: checkpoint.tensor(name) for name in shell.head})
    return shell, load_tokenizer(checkpoint.path)


ROWS = [Row(*row) for row in corpus(LABELS["three"], 40, seed=4)]


@pytest.mark.parametrize("budget", [1, 50, 4096])
def test_outputs_are_those_of_the_dense_model(model, zoo, monkeypatch, budget):
    monkeypatch.setattr(module, "BATCH_TOKENS", budget)
    runner = Runner(*model, Examples.of(ROWS, *model, where="x"))
    expected = probabilities(zoo.dense("three"), [row.text for row in ROWS])
    assert runner.outputs().softmax(-1) == pytest.approx(expected, abs=1e-5)
    labels = [LABELS["three"].index(row.label) for row in ROWS]
    made = runner()
    assert made.of("loss") == pytest.approx(-expected.log()[range(40), labels].numpy(), abs=1e-4)
    assert made.distill is None
    runner.refer_()
    assert runner().of("distill") == pytest.approx(0, abs=1e-12)


def test_a_label_that_the_head_lacks_is_named(model):
    with pytest.raises(CalibrationError, match=r"data\.jsonl: line 7: label 'nope' is none of"):
        Examples.of([*ROWS, Row("a", "nope", 7)], *model, where="data.jsonl")


def test_labels_count_only_where_every_row_has_one(model):
    examples = Examples.of([*ROWS, Row("a")], *model, where="x")
    assert examples.labels is None
    assert len(examples) == 41


def test_texts_that_were_cut_are_counted(model):
    exact, longer = Row("tool " * 30), Row("tool " * 31)
    examples = Examples.of([exact, longer, Row("")], *model, where="x")
    assert [len(ids) for ids in examples.ids] == [32, 32, 2]
    assert examples.n_truncated == 1
    assert torch.isfinite(Runner(*model, examples).outputs()).all()
