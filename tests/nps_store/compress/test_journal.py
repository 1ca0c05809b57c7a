"""A search that goes on where it was stopped: every trial once, and the identical result."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nps_store.compress import Options, TaskSource, compress
from nps_store.compress.calibrate import Calibration
from nps_store.errors import BadOptionError, JournalDamagedError, JournalMismatchError
from tests.nps_store.compress.notes import Notes
from tests.nps_store.models import LABELS, corpus, edit, write_rows

OPTIONS = Options(method="topk", target=0.7, evaluations=8)


class Stopped(BaseException):
    """What a signal would do."""


@pytest.fixture
def evaluated(monkeypatch):
    """Counts evaluations on the model, and stops before the one whose number is set."""
    counts = {"n": 0, "stop": None}
    for name in ("loss", "check"):
        evaluate = getattr(Calibration, name)

        def counting(self, selection, evaluate=evaluate):
            if counts["n"] == counts["stop"]:
                raise Stopped
            counts["n"] += 1
            return evaluate(self, selection)

        monkeypatch.setattr(Calibration, name, counting)
    return counts


def run(zoo, tmp_path, name, *, journal="journal", options=OPTIONS, source=None, **more):
    out = tmp_path / f"{name}.nps"
    compress(zoo.base, [source or zoo.source("two")], out, options=options,
             journal=None if journal is None else tmp_path / journal, **more)  # fmt: skip
    return out.read_bytes()


@pytest.fixture(autouse=True)
def fixed_time(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def test_a_stopped_search_goes_on_to_the_identical_store(zoo, tmp_path, evaluated):
    alone = run(zoo, tmp_path, "alone", journal=None)
    evaluated["n"] = 0
    assert run(zoo, tmp_path, "whole", journal="whole") == alone
    n_all = evaluated["n"]  # may be fewer: what is asked for twice is evaluated once
    for stop in (0, 3, n_all - 1):
        evaluated.update(n=0, stop=stop)
        with pytest.raises(Stopped):
            run(zoo, tmp_path, "stopped", journal=f"after {stop}")
        evaluated.update(n=0, stop=None)
        notes = Notes()
        assert run(zoo, tmp_path, f"{stop}", journal=f"after {stop}", progress=notes) == alone
        assert evaluated["n"] == n_all - stop
        taken = [note for note in notes.notes if "trials are taken from" in note]
        assert [note.split()[1] for note in taken] == ([str(stop)] if stop else [])
        whole = (tmp_path / "whole" / "two.jsonl").read_bytes()
        assert (tmp_path / f"after {stop}" / "two.jsonl").read_bytes() == whole
    lines = [json.loads(line) for line in whole.splitlines()]
    assert {"task", "base", "fine_tune", "calibration", "options", "versions"} <= lines[0].keys()
    assert [line["trial"] for line in lines[1:]] == list(range(1, len(lines)))
    assert {line["of"] for line in lines[1:]} == {"loss", "check"}
    assert all(0 < line["keep"] < 1 and len(line["parameters"]) == 7 for line in lines[1:])


def test_a_torn_last_line_is_dropped(zoo, tmp_path, evaluated):
    whole = run(zoo, tmp_path, "whole")
    path = tmp_path / "journal" / "two.jsonl"
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    for kept, n_again in ((content[:-20], 1), (b"".join(lines[:5]) + b'{"tr', len(lines) - 5),
                          (lines[0][:30], len(lines) - 1), (b"", len(lines) - 1)):  # fmt: skip
        path.write_bytes(kept)
        evaluated["n"] = 0
        assert run(zoo, tmp_path, f"{len(kept)}") == whole
        assert evaluated["n"] == n_again
        assert path.read_bytes() == content


def test_a_journal_of_another_search_is_refused_by_what_differs(zoo, tmp_path, monkeypatch):
    run(zoo, tmp_path, "first")
    path = tmp_path / "journal" / "two.jsonl"
    before = path.read_bytes()
    rows = write_rows(tmp_path / "rows.jsonl", corpus(LABELS["two"], 20, seed=9))
    other = edit(zoo.dense("two"), tmp_path / "other", lambda t: t["classifier.bias"].add_(1))
    config = tmp_path / "other config"
    edit(zoo.dense("two"), config, lambda t: None)
    fields = json.loads((config / "config.json").read_text())
    (config / "config.json").write_text(json.dumps({**fields, "layer_norm_eps": 1e-5}))
    base = edit(zoo.base, tmp_path / "base", lambda t: t["pooler.dense.bias"].add_(1))
    monkeypatch.setattr(Calibration, "__init__", None)  # would fail if any work began
    for change, source, words in (
        ({"seed": 1}, None, r"\(options\.seed\): expected 1, got 0"),
        ({"seed": 3, "keep": 0.1, "target": None}, None,
         r"\(options\.keep, options\.seed, options\.target\): expected 0\.1, 3, None, got None, 0"),
        ({}, TaskSource("two", zoo.dense("two"), rows), r"\(calibration\)"),
        ({}, TaskSource("two", other, zoo.data("two")), r"\(fine_tune\)"),
        ({}, TaskSource("two", config, zoo.data("two")), r"\(files\)"),
    ):  # fmt: skip
        with pytest.raises(JournalMismatchError, match=words) as refused:
            run(zoo, tmp_path, "other", options=replace(OPTIONS, **change), source=source)
        assert str(path) in str(refused.value)
        assert path.read_bytes() == before
    with pytest.raises(JournalMismatchError, match=r"\(base\)"):
        compress(base, [zoo.source("two")], tmp_path / "s.nps", options=OPTIONS,
                 journal=tmp_path / "journal")  # fmt: skip


def test_a_learned_selection_is_learned_again_to_the_identical_store(zoo, tmp_path, evaluated):
    """Gradient steps are no trials; the check of what they gave is."""
    options = Options(keep=0.03, evaluations=8, steps=6)
    alone = run(zoo, tmp_path, "alone", journal=None, options=options)
    whole = run(zoo, tmp_path, "whole", options=options)
    evaluated["n"] = 0
    assert run(zoo, tmp_path, "again", options=options) == whole == alone
    assert evaluated["n"] == 0


def test_time_to_search_is_no_part_of_the_identity(zoo, tmp_path):
    run(zoo, tmp_path, "first")
    run(zoo, tmp_path, "again", options=replace(OPTIONS, search_seconds=1e4))


@pytest.mark.parametrize("line", [b"{}\n", b"null\n", b"[]\n", b"\xff\n", b'{"of": "loss"}\n'])
def test_a_line_that_is_no_trial_is_named(zoo, tmp_path, line):
    run(zoo, tmp_path, "first")
    path = tmp_path / "journal" / "two.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = line
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalDamagedError, match=r"two\.jsonl: not a line .*line 3"):
        run(zoo, tmp_path, "again")


@pytest.mark.parametrize("name", ["../two", "a/b", ".", "..", "\u00fc" * 300, "x" * 900])
def test_any_task_name_has_its_file(zoo, tmp_path, name):
    source = TaskSource(name, zoo.dense("two"), zoo.data("two"))
    options = Options(method="dither", keep=0.1)
    run(zoo, tmp_path, "s", source=source, options=options)
    assert len(list((tmp_path / "journal").iterdir())) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal", "s.nps"]
    run(zoo, tmp_path, "t", source=source, options=options)


def test_nothing_is_recorded_where_nothing_is_searched(zoo, tmp_path):
    for options, calibrated in ((Options(method="exact"), True), (Options(keep=0.1), False)):
        source = zoo.source("two", calibrated=calibrated)
        run(zoo, tmp_path, f"{calibrated}", options=options, source=source)
    assert not (tmp_path / "journal").exists()


def test_a_place_that_is_no_directory_is_refused(zoo, tmp_path):
    (tmp_path / "file").touch()
    for journal in ("file", "none/journal"):
        with pytest.raises(BadOptionError, match=r"--journal is .*expected a directory"):
            run(zoo, tmp_path, "s", journal=journal)
    assert not (tmp_path / "s.nps").exists()
