"""A language model through compression, from its calibration texts to the stored quality."""

from __future__ import annotations

import pytest

from nps_store.checkpoint import Checkpoint
from nps_store.compress import Options, TaskSource, compress
from nps_store.errors import CalibrationError
from nps_store.evaluate import evaluate_task
from nps_store.store import Store
from tests.nps_store.language import make_language, texts, write_texts


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def language(request, tmp_path_factory):
    return make_language(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("objective", ["distill", "loss"])
def test_a_fraction_is_kept_and_measured_on_text_alone(language, tmp_path, objective):
    options = Options(keep=0.3, objective=objective, evaluations=6, steps=5)
    (stored,) = compress(language.base, [language.source], tmp_path / "s.nps", options=options)
    assert stored.quality.measure == "loss"
    assert 0.5 < stored.quality.value <= 1.2
    assert stored.quality.low <= stored.quality.value <= stored.quality.high
    assert stored.nbytes < stored.dense_nbytes
    with Store.open(tmp_path / "s.nps") as store:
        meta = store.task("task").meta
        assert meta["objective"] == objective
        # The output layer goes through the task vector like any tensor.
        changed = {change.name for change in store.changes("task")}
    own_head = "lm_head.weight" in Checkpoint(language.base).names
    assert ("lm_head.weight" in changed) == own_head


def test_a_richer_rate_keeps_more(language, tmp_path):
    kept = []
    for keep in (0.02, 0.5):
        options = Options(method="dither", keep=keep)
        path = tmp_path / f"{keep}.nps"
        (stored,) = compress(language.base, [language.source], path, options=options)
        kept.append(stored.quality.value)
    assert kept[0] < kept[1]


def test_evaluation_frames_the_stored_task(language, tmp_path):
    data = write_texts(tmp_path / "test.jsonl", texts(30, shift=5, seed=8))
    compress(language.base, [language.source], tmp_path / "s.nps",
             options=Options(keep=0.3, evaluations=6, steps=5))  # fmt: skip
    with Store.open(tmp_path / "s.nps") as store:
        found = evaluate_task(store, "task", data=data, dense=language.dense)
        alone = evaluate_task(store, "task", data=data)
    assert found.metric == "loss"
    assert found.dense < found.stored < found.base
    expected = (found.base - found.stored) / (found.base - found.dense)
    assert found.gain_kept.value == pytest.approx(expected)
    assert found.gain_kept.low < found.gain_kept.value < found.gain_kept.high
    assert found.perplexity["dense"] == pytest.approx(2.718281828**found.dense)
    assert (found.ratio, found.agreement) == (None, None)
    assert (alone.stored, alone.base) == (found.stored, found.base)
    assert (alone.dense, alone.gain_kept, alone.perplexity["dense"]) == (None, None, None)
    assert found.to_json()["perplexity"] == found.perplexity


def test_a_lossless_task_keeps_the_whole_gain(language, tmp_path):
    compress(language.base, [TaskSource("task", language.dense)], tmp_path / "s.nps",
             options=Options(method="exact"))  # fmt: skip
    with Store.open(tmp_path / "s.nps") as store:
        found = evaluate_task(store, "task", data=language.data, dense=language.dense)
    assert found.gain_kept.value == 1
    assert found.stored == found.dense


@pytest.mark.parametrize(
    ("lines", "objective", "named"),
    [
        (["red green", ""], "distill", "line 2"),
        (["red green", "blue"] * 4, "accuracy", "label"),
    ],
)
def test_data_that_cannot_be_used_is_refused(language, tmp_path, lines, objective, named):
    data = write_texts(tmp_path / "data.jsonl", lines)
    options = Options(keep=0.3, objective=objective)
    with pytest.raises(CalibrationError, match=named):
        compress(language.base, [TaskSource("task", language.dense, data)], tmp_path / "s.nps",
                 options=options)  # fmt: skip
    assert not (tmp_path / "s.nps").exists()
