"""Bad input is found before any task is worked on, whichever of the call's tasks it belongs to."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from formats.container import Container
from nps_store.compress import Options, TaskSource, compress
from nps_store.compress import job as job_module
from nps_store.errors import CalibrationError, UnrelatedModelError
from nps_store.store import Store
from tests.nps_store.compress.notes import Notes
from tests.nps_store.models import LABELS, corpus, edit, same, weights, write_rows
from tests.tiny import save_tokenizer


@pytest.fixture
def no_work(monkeypatch):
    """Fails if any task is worked on."""
    monkeypatch.setattr(job_module, "decide", None)


def rows_of(tmp_path, *rows):
    return write_rows(tmp_path / "rows.jsonl", rows)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("a", "a"), ("b", "zebra"), ("c", "tool")],
         r"rows\.jsonl: line 2: label 'zebra' is none of the head's: expected one of 'a', 'tool'"),
        ([("a", "a")], r"rows\.jsonl: 1 calibration examples; expected at least 2, one to search"),
        ([], r"rows\.jsonl: no examples; expected lines like"),
    ],
    ids=["label", "one line", "empty"],
)  # fmt: skip
def test_calibration_of_the_last_task_is_checked_before_the_first_is_searched(
    zoo, tmp_path, no_work, rows, sentence
):
    bad = TaskSource("bad", zoo.dense("two"), rows_of(tmp_path, *rows))
    with pytest.raises(CalibrationError, match=sentence):
        compress(zoo.base, [zoo.source("three"), bad], tmp_path / "s.nps")
    assert not (tmp_path / "s.nps").exists()


def test_rows_without_any_label_are_no_wrong_labels(zoo, tmp_path):
    data = rows_of(tmp_path, *[(text, None) for text, _ in corpus(LABELS["two"], 8, seed=1)])
    (stored,) = compress(zoo.base, [TaskSource("two", zoo.dense("two"), data)], tmp_path / "s.nps",
                         options=Options(method="dither", keep=0.1))  # fmt: skip
    assert stored.quality.measure == "distill"


def test_a_missing_label_is_named_by_its_line(zoo, tmp_path, no_work):
    data = tmp_path / "rows.jsonl"
    data.write_text('\n{"text": "a", "label": "a"}\n\n{"text": "b"}\n')
    with pytest.raises(CalibrationError, match="line 4 has no label, which objective 'loss'"):
        compress(zoo.base, [TaskSource("two", zoo.dense("two"), data)], tmp_path / "s.nps",
                 options=Options(objective="loss"))  # fmt: skip


def stranger(directory):
    """Same architecture and names, another start: nothing of the base is in it."""
    torch.manual_seed(99)
    config = BertConfig.from_pretrained(directory.parent / "base", num_labels=2)
    BertForSequenceClassification(config).save_pretrained(directory)
    save_tokenizer(directory)
    return directory


@pytest.fixture(scope="module")
def unrelated(zoo, tmp_path_factory):
    root = tmp_path_factory.mktemp("stranger")
    (root / "base").symlink_to(zoo.base)
    return stranger(root / "stranger")


def test_a_stranger_is_refused_with_what_storing_it_would_cost(zoo, tmp_path, unrelated, no_work):
    nbytes = sum(tensor.nbytes for tensor in weights(unrelated).values())
    with pytest.raises(UnrelatedModelError, match="not a fine-tune of this base") as refused:
        compress(zoo.base, [zoo.source("two"), TaskSource("x", unrelated)], tmp_path / "s.nps",
                 options=Options(keep=0.1))  # fmt: skip
    assert f"takes {nbytes:,} bytes" in str(refused.value)
    assert "--method exact" in str(refused.value)
    assert str(unrelated) in str(refused.value)


def test_a_stranger_can_still_be_stored_losslessly(zoo, tmp_path, unrelated):
    compress(zoo.base, [TaskSource("x", unrelated)], tmp_path / "s.nps",
             options=Options(method="exact"))  # fmt: skip
    with Store.open(tmp_path / "s.nps") as store:
        assert same(store.materialize("x"), weights(unrelated))


@pytest.mark.parametrize("asked", [{}, {"target": 0.9}, {"keep": 0.1}, {"max_nbytes": 20_000}])
def test_a_fine_tune_equal_to_the_base_has_no_delta_and_says_so(zoo, tmp_path, asked):
    task = edit(zoo.base, tmp_path / "task", lambda tensors: None)
    data = rows_of(tmp_path, *[(text, None) for text, _ in corpus("a", 8, seed=1)])
    notes = Notes()
    (stored,) = compress(zoo.base, [TaskSource("same", task, data)], tmp_path / "s.nps",
                         options=Options(**asked), progress=notes)  # fmt: skip
    assert notes.notes == [
        "same: its weights equal the base's, the delta takes 0 bytes: nothing is stored"
    ]
    assert (stored.keep, stored.quality) == (0, None)
    with Container.open(tmp_path / "s.nps") as container:
        assert container.directory("same").streams == {}
    with Store.open(tmp_path / "s.nps") as store:
        assert same(store.materialize("same"), weights(zoo.base))


def test_a_new_head_on_the_base_is_all_that_is_stored(zoo, tmp_path):
    def reset(tensors):
        base = weights(zoo.base)
        for name in tensors:
            if name.startswith("bert."):
                tensors[name] = base[name.removeprefix("bert.")]

    task = edit(zoo.dense("two"), tmp_path / "task", reset)
    notes = Notes()
    (stored,) = compress(zoo.base, [TaskSource("head", task, zoo.data("two"))],
                         tmp_path / "s.nps", progress=notes)  # fmt: skip
    assert "only what the base lacks is stored (2 tensors)" in notes.notes[0]
    assert stored.keep == 0
    with Container.open(tmp_path / "s.nps") as container:
        names = {entry.name for entry in container.directory("head").tensors}
    assert names == {"classifier.weight", "classifier.bias"}
