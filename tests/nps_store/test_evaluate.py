from __future__ import annotations

import shutil

import pytest
import torch

from nps_store.compress import Options, TaskSource, compress
from nps_store.errors import BadOptionError, CalibrationError, ModelLoadError
from nps_store.evaluate import evaluate_task
from nps_store.store import Store
from tests.nps_store.models import LABELS, corpus, edit, grow, probabilities, write_rows


@pytest.fixture(scope="module")
def made(zoo, tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    grown = grow(zoo.dense("three"), root / "grown", 2)
    tasks = [TaskSource("three", zoo.dense("three")), TaskSource("grown", grown)]
    tasks.append(TaskSource("embed", edit(zoo.base, root / "embed", lambda t: None)))
    compress(zoo.base, tasks, root / "s.nps", options=Options(method="exact"))
    half = [TaskSource("half", zoo.dense("three"))]
    compress(zoo.base, half, root / "half.nps", options=Options(keep=0.7, dtype="BF16"))
    return root


@pytest.fixture
def data(tmp_path):
    return write_rows(tmp_path / "data.jsonl", corpus(LABELS["three"], 60, seed=77))


def accuracy(directory, rows):
    labels = torch.tensor([LABELS["three"].index(label) for _, label in rows])
    made = probabilities(directory, [text for text, _ in rows]).argmax(-1)
    return float((made == labels).double().mean())


@pytest.mark.parametrize("name", ["three", "grown"])
def test_accuracy_is_the_dense_models_for_exact(zoo, made, data, name):
    dense = zoo.dense("three") if name == "three" else made / "grown"
    with Store.open(made / "s.nps") as store:
        result = evaluate_task(store, name, data=data, dense=dense)
    expected = accuracy(dense, corpus(LABELS["three"], 60, seed=77))
    assert (result.stored, result.dense, result.ratio) == (expected, expected, 1)
    assert (result.metric, result.agreement) == ("accuracy", 1)
    assert (result.n_examples, result.n_truncated) == (60, 0)
    assert result.to_json()["stored"] == expected


def test_a_task_of_another_dtype_is_evaluated_in_its_own(made, data, zoo):
    with Store.open(made / "half.nps") as store:
        result = evaluate_task(store, "half", data=data, dense=zoo.dense("three"))
    assert result.agreement > 0.8


def test_vectors_are_compared_with_the_dense_ones(zoo, made, data):
    with Store.open(made / "s.nps") as store:
        result = evaluate_task(store, "embed", data=data, dense=made / "embed")
        assert result.metric == "cosine to dense"
        assert result.stored == pytest.approx(1)
        with pytest.raises(BadOptionError, match="--dense"):
            evaluate_task(store, "embed", data=data)


def test_data_that_cannot_be_used(made, tmp_path):
    with Store.open(made / "s.nps") as store:
        for number, rows in enumerate([[("a", None)], [("a", "nope")], []]):
            path = write_rows(tmp_path / f"{number}.jsonl", rows)
            with pytest.raises(CalibrationError, match=f"{number}.jsonl"):
                evaluate_task(store, "three", data=path)


def test_a_dense_directory_without_its_head_is_refused(zoo, made, data, tmp_path):
    broken = edit(zoo.dense("three"), tmp_path / "x", lambda t: t.pop("classifier.bias"))
    with (
        Store.open(made / "s.nps") as store,
        pytest.raises(ModelLoadError, match=r"classifier\.bias"),
    ):
        evaluate_task(store, "three", data=data, dense=broken)
    shutil.rmtree(broken)
