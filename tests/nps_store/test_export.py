"""An exported directory is what the store says, whole or not there at all."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from formats.container import Container
from formats.errors import ChecksumMismatchError, StoreExistsError, TaskNotFoundError
from nps_store import export as module
from nps_store.compress import Options, TaskSource, compress
from nps_store.errors import BadOptionError
from nps_store.export import export_task
from nps_store.store import Store
from tests.nps_store.models import grow, probabilities, same, weights


@pytest.fixture(scope="module")
def path(zoo, tmp_path_factory):
    directory = tmp_path_factory.mktemp("export")
    sources = [zoo.source("two", calibrated=False), zoo.source("three", calibrated=False)]
    grown = grow(zoo.dense("five"), directory / "grown", 4)
    sources.append(TaskSource("grown", grown))
    compress(zoo.base, sources, directory / "s.nps", options=Options(keep=0.1))
    return directory / "s.nps"


@pytest.fixture
def store(path):
    with Store.open(path) as opened:
        yield opened


@pytest.mark.parametrize("name", ["two", "three", "grown"])
@pytest.mark.parametrize("limit", [1 << 30, 10_000, 1])
def test_weights_are_those_of_the_store_in_however_many_files(store, tmp_path, name, limit):
    out = tmp_path / "deep" / "out"
    nbytes = export_task(store, name, out, max_shard_nbytes=limit)
    expected = store.materialize(name)
    assert same(weights(out), expected)
    assert nbytes == sum(tensor.nbytes for tensor in expected.values())
    assert (len(list(out.glob("*.safetensors"))) == 1) == (limit == 1 << 30)
    model = AutoModelForSequenceClassification.from_pretrained(out)
    state = model.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in expected.items())
    assert len(AutoTokenizer.from_pretrained(out)) == model.config.vocab_size
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_exported_task_can_be_compressed_again(store, zoo, tmp_path):
    export_task(store, "two", tmp_path / "out", max_shard_nbytes=10_000)
    compress(zoo.base, [TaskSource("two", tmp_path / "out")], tmp_path / "again.nps",
             options=Options(method="exact"))  # fmt: skip
    with Store.open(tmp_path / "again.nps") as again:
        assert same(again.materialize("two"), store.materialize("two"))


def test_what_is_there_is_not_replaced_unasked(store, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(StoreExistsError):
            export_task(store, "two", out, overwrite=overwrite)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreExistsError):
        export_task(store, "two", tmp_path / "file", overwrite=True)
    assert (out / "thesis.txt").read_text() == "years of work"


def test_no_message_tells_the_temporary_name(store, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadOptionError, match=r"file: is a file; expected a directory to put out"):
        export_task(store, "two", tmp_path / "file" / "deep" / "out")
    with pytest.raises(OSError, match="too long") as caught:
        export_task(store, "two", tmp_path / ("x" * 250))
    assert caught.value.filename == str(tmp_path / ("x" * 250))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_overwrite_replaces_a_model_directory(store, tmp_path):
    out = tmp_path / "out"
    export_task(store, "two", out)
    (out / "left_over.json").write_text("{}")
    export_task(store, "three", out, overwrite=True)
    assert same(weights(out), store.materialize("three"))
    assert not (out / "left_over.json").exists()
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("when", ["_write_weights", "_publish"])
def test_a_crash_leaves_what_was_there(store, tmp_path, monkeypatch, when):
    out = tmp_path / "out"
    export_task(store, "two", out)
    before = weights(out)

    def crash(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, when, crash)
    with pytest.raises(KeyboardInterrupt):
        export_task(store, "three", out, overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        export_task(store, "three", tmp_path / "new")
    assert same(weights(out), before)
    assert list(tmp_path.iterdir()) == [out]


def test_a_damaged_task_leaves_nothing(path, tmp_path):
    with Container.open(path) as container:
        offset = container.root.tasks["two"].first_offset
    content = bytearray(path.read_bytes())
    content[offset + 1] ^= 4
    damaged = path.with_name("damaged.nps")
    damaged.write_bytes(content)
    with Store.open(damaged) as store:
        with pytest.raises(ChecksumMismatchError):
            export_task(store, "two", tmp_path / "out")
        with pytest.raises(TaskNotFoundError):
            export_task(store, "nope", tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
        export_task(store, "three", tmp_path / "out")  # the others are whole


def test_a_served_export_answers_like_the_dense_model(zoo, tmp_path):
    compress(zoo.base, [zoo.source("two", calibrated=False)], tmp_path / "s.nps",
             options=Options(method="exact"))  # fmt: skip
    with Store.open(tmp_path / "s.nps") as store:
        export_task(store, "two", tmp_path / "out")
    texts = ["a small library", "tool"]
    dense, exported = probabilities(zoo.dense("two"), texts), probabilities(tmp_path / "out", texts)
    assert torch.equal(dense, exported)
