"""What is calibrated: objectives, heads, vectors, grown vocabularies; what data do not serve."""

from __future__ import annotations

import pytest
import torch

from nps_store.calibration import Row
from nps_store.checkpoint import Checkpoint
from nps_store.compress import Options, TaskSource, compress
from nps_store.compress.calibrate import Calibration
from nps_store.compress.fine_tune import FineTune
from nps_store.errors import CalibrationError
from nps_store.evaluate import evaluate_task
from nps_store.store import Store
from tests.nps_store.compress.notes import Notes
from tests.nps_store.models import LABELS, corpus, edit, grow, weights, write_rows

QUICK = {"evaluations": 10, "steps": 10}


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
                         options=Options(method="dither", target=0.95))  # fmt: skip
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
    assert stored.quality.measure == "distill"
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


def test_an_objective_that_cannot_tell_anything_is_refused(zoo, tmp_path):
    """Fine-tune and base answer alike: every selection would look perfect."""
    word = corpus(LABELS["two"], 1, seed=0)[0][0].split()[0]
    data = write_rows(tmp_path / "d.jsonl", [(word, None)] * 8)
    unused = edit(zoo.base, tmp_path / "task",
                  lambda t: t["embeddings.word_embeddings.weight"][4].add_(1))  # fmt: skip
    alike = r"objective 'distill' is (\S+) for the base and \1 for the fine-tune, so it cannot tell"
    with pytest.raises(CalibrationError, match=alike):
        compress(zoo.base, [TaskSource("unused", unused, data)], tmp_path / "s.nps",
                 options=Options(keep=0.1, **QUICK))  # fmt: skip
    assert not (tmp_path / "s.nps").exists()


def test_labels_by_which_the_fine_tune_gains_nothing(zoo, tmp_path):
    """All labels are wrong: the loss cannot be searched by, but outputs can be kept."""
    rows = [(text, LABELS["two"][1 - LABELS["two"].index(label)])
            for text, label in corpus(LABELS["two"], 60, seed=6)]  # fmt: skip
    source = TaskSource("two", zoo.dense("two"), write_rows(tmp_path / "d.jsonl", rows))
    for objective in ("loss", "accuracy"):
        with pytest.raises(CalibrationError, match=f"objective '{objective}' is"):
            compress(zoo.base, [source], tmp_path / "s.nps",
                     options=Options(keep=0.1, objective=objective, **QUICK))  # fmt: skip
    notes = Notes()
    (stored,) = compress(zoo.base, [source], tmp_path / "s.nps",
                         options=Options(keep=0.1, **QUICK), progress=notes)  # fmt: skip
    assert "the base is no worse than the fine-tune" in notes.notes[0]
    assert stored.quality.measure == "distill"
    assert 0 < stored.quality.value <= 1


def test_labels_count_only_where_every_row_has_one(zoo):
    """Whichever part the row without a label falls into."""
    fine_tune = FineTune("two", Checkpoint(zoo.dense("two")), Checkpoint(zoo.base))
    wrong = [Row(text, LABELS["two"][1 - LABELS["two"].index(label)])
             for text, label in corpus(LABELS["two"], 10, seed=6)]  # fmt: skip
    assert Calibration(fine_tune, wrong, Options()).lacks_gain
    for bare in range(len(wrong)):
        rows = [*wrong[:bare], Row(wrong[bare].text), *wrong[bare + 1 :]]
        assert not Calibration(fine_tune, rows, Options()).lacks_gain


def test_texts_beyond_the_models_limit_are_cut_and_counted(zoo, tmp_path):
    rows = corpus(LABELS["two"], 30, seed=4)
    rows[7] = ("tool " * 400, "tool")
    rows[20] = ("a " * 31, "a")
    data = write_rows(tmp_path / "d.jsonl", rows)
    notes = Notes()
    (stored,) = compress(zoo.base, [TaskSource("two", zoo.dense("two"), data)],
                         tmp_path / "s.nps", options=Options(keep=0.1, **QUICK),
                         progress=notes)  # fmt: skip
    assert stored.n_truncated == 2
    assert "two: 2 calibration texts were cut to length" in notes.notes
