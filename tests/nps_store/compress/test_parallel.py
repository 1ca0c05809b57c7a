"""Tasks in processes of their own: the same store, the same words, the same errors."""

from __future__ import annotations

import tempfile

import pytest

from nps_store.compress import Options, Silent, TaskSource, add, compress
from nps_store.errors import BadOptionError, CalibrationError
from tests.nps_store.models import edit, write_rows

QUICK = {"evaluations": 8, "steps": 10}


class Listener(Silent):
    """Everything it was told, by task."""

    def __init__(self):
        self.told = {}

    def stage(self, task, what):
        self.told.setdefault(task, []).append(what)

    def trial(self, task, keep, loss, count):
        self.told.setdefault(task, []).append((keep, loss, count))

    def step(self, task, done, total):
        self.told.setdefault(task, []).append(f"step {done} of {total}")

    def note(self, task, text):
        self.told.setdefault(task, []).append(text)


@pytest.fixture
def own_tmp(tmp_path, monkeypatch):
    """A temporary directory of the test's own, so that litter shows."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@pytest.mark.slow
def test_the_store_is_the_same_byte_for_byte(zoo, tmp_path, monkeypatch, own_tmp):
    """New tasks and tasks added to a store that holds its base; searched, safe and lossless."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    stores, told = [], []
    for jobs in (1, 2):
        out, listener = tmp_path / f"{jobs}.nps", Listener()
        sources = [zoo.source("two"), zoo.source("three", calibrated=False), zoo.source("five")]
        compress(zoo.base, sources, out, options=Options(method="dither", keep=0.05),
                 embed_base=True, jobs=jobs, progress=listener)  # fmt: skip
        again = [TaskSource(name, zoo.dense("two"), zoo.data("two")) for name in ("a", "b")]
        add(out, again, options=Options(target=0.7, **QUICK), jobs=jobs, progress=listener)
        exact = [TaskSource(name, zoo.dense("two")) for name in ("c", "d")]
        add(out, exact, options=Options(method="exact"), jobs=jobs, progress=listener)
        stores.append(out.read_bytes())
        told.append(listener.told)
    assert stores[0] == stores[1]
    assert told[0] == told[1]
    assert sum(isinstance(what, tuple) for what in told[1]["a"]) > 4  # trials came through
    assert told[1]["a"].count("step 10 of 10") > 0
    assert list(own_tmp.iterdir()) == []


@pytest.mark.slow
def test_an_error_of_one_task_ends_the_others_and_is_its_own(zoo, tmp_path, own_tmp):
    alike = write_rows(tmp_path / "alike.jsonl", [("tool", None)] * 8)
    unused = edit(zoo.base, tmp_path / "unused",
                  lambda t: t["embeddings.word_embeddings.weight"][4].add_(1))  # fmt: skip
    endless = TaskSource("endless", zoo.dense("five"), zoo.data("five"))
    bad = TaskSource("bad", unused, alike)
    options = Options(keep=0.02, evaluations=10_000_000)
    with pytest.raises(CalibrationError) as alone:
        compress(zoo.base, [bad], tmp_path / "s.nps", options=options)
    with pytest.raises(CalibrationError) as refused:
        compress(zoo.base, [endless, bad], tmp_path / "s.nps", options=options, jobs=2)
    assert str(refused.value) == str(alone.value)
    assert "in the worker of task 'bad'" in refused.value.__notes__[0]
    assert not (tmp_path / "s.nps").exists()
    assert list(own_tmp.iterdir()) == []


@pytest.mark.parametrize("jobs", [0, -1])
def test_no_workers_is_no_way_to_work(zoo, tmp_path, jobs):
    with pytest.raises(BadOptionError, match=f"--jobs is {jobs}; expected 1 or more"):
        compress(zoo.base, [zoo.source("two")], tmp_path / "s.nps", jobs=jobs)
