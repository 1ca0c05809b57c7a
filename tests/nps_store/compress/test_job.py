"""What is refused before any work begins, and what is left behind: all tasks of a call or none."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
import torch

from formats.container import Container
from formats.errors import StoreExistsError
from nps_store.compress import Options, TaskSource, add, compress
from nps_store.compress import job as job_module
from nps_store.errors import (
    BadOptionError,
    ModelLoadError,
    NonFiniteWeightError,
    ShapeMismatchError,
    TaskExistsError,
    UnrelatedModelError,
)
from nps_store.store import Store
from tests.nps_store.models import edit


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
