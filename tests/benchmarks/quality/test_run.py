"""A run measures what is missing, keeps what it has, and tells what it could not do."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks.methods import METHODS
from benchmarks.methods.compeft import ComPeft
from benchmarks.methods.nps import Nps
from benchmarks.quality import run as run_module
from benchmarks.quality.points import Journal, measure, merged
from benchmarks.quality.run import Run
from benchmarks.quality.tasks import find, load

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.methods.method import Compressed, Setting
    from benchmarks.methods.problem import Problem
    from benchmarks.quality.tasks import FineTune, Loaded


class Broken(ComPeft):
    """Fails at its first setting."""

    name = "broken"

    def compress(self, problem: Problem, setting: Setting) -> Compressed:
        if setting == self.settings[0]:
            raise ValueError("cannot")
        return super().compress(problem, setting)


class Missing(ComPeft):
    """Needs a package that is nowhere."""

    name = "missing"

    def compress(self, problem: Problem, setting: Setting) -> Compressed:
        raise ModuleNotFoundError("no module", name="nowhere")


@pytest.fixture
def run(fine_tunes: list[FineTune], tmp_path: Path) -> Run:
    out = tmp_path / "out.json"
    return Run(fine_tunes[:1], fine_tunes, ["ComPEFT"], "cpu", out, tmp_path / "journal", 1)


def test_a_run_measures_what_is_missing_once(run: Run) -> None:
    first = run()
    assert first == json.loads(run.out.read_text())
    assert first["schema"] == "nps.bench-quality/1"
    assert first["packages"]["torch"]
    assert [p["setting"] for p in first["points"]] == list(ComPeft.settings)
    assert all(p["bits"] > 0 and p["nbytes"] > 0 and p["seconds"] >= 0 for p in first["points"])

    Journal(run.journal).clear()
    run.out.write_text(json.dumps(first | {"points": first["points"][1:]}))
    second = run()["points"]
    assert [p["setting"] for p in second] == list(ComPeft.settings)
    assert second[1:] == first["points"][1:]
    assert [p["setting"] for p in Journal(run.journal).lines()] == [ComPeft.settings[0]]


def test_points_are_measured_again_where_asked(run: Run) -> None:
    first = run()["points"]
    stale = [{**p, "bits": 99.0} for p in first]
    gone = {**stale[0], "setting": {"keep": 0.77}}
    other = {**stale[0], "method": "trim"}
    run.out.write_text(json.dumps({"points": [*stale, gone, other]}))
    points = replace(run, again=True)()["points"]
    assert [p["bits"] for p in points] == [*(p["bits"] for p in first), 99.0]


@pytest.mark.slow
def test_several_processes_measure_the_same(run: Run, tmp_path: Path) -> None:
    alone = run()["points"]
    other = replace(run, jobs=2, out=tmp_path / "other.json", journal=tmp_path / "other")
    spread = replace(other, tasks=run.everything[:2])()["points"]
    ours = [point for point in spread if point["task"] == run.tasks[0].name]
    assert [p["nbytes"] for p in ours] == [p["nbytes"] for p in alone]
    assert len(spread) == 2 * len(alone)


def test_failures_cost_no_other_point_and_are_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(METHODS, "broken", Broken())
    monkeypatch.setitem(METHODS, "missing", Missing())
    run = replace(run, methods=["missing", "broken"])
    run_module._task(run, run.tasks[0], set(), None)
    lines = list(Journal(run.journal).lines())
    reasons = {line["method"]: line["reason"] for line in lines if "reason" in line}
    assert reasons["missing"] == "nowhere is not installed"
    assert "ValueError: cannot" in reasons["broken"]
    assert len(lines) == 2 + len(ComPeft.settings) - 1
    assert "cannot" in capsys.readouterr().err


def test_nothing_is_begun_after_the_deadline(run: Run) -> None:
    run_module._task(run, run.tasks[0], set(), 0.0)
    assert list(Journal(run.journal).lines()) == []


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("a", {"bits": 1})
    with (tmp_path / "a.jsonl").open("a") as out:
        out.write('{"bits": 2')
    assert list(journal.lines()) == [{"bits": 1}]


def test_later_points_replace_earlier_ones() -> None:
    old = {"group": "g", "task": "t", "method": "m", "setting": {"keep": 1}, "bits": 1}
    assert merged([old], [old | {"bits": 2}]) == [old | {"bits": 2}]


def test_our_own_points_are_the_written_file(loaded: Loaded, fine_tunes: list[FineTune]) -> None:
    point = measure(loaded, fine_tunes[2], Nps(options={"evaluations": 6}), {"keep": 0.2})
    assert point["gain_kept"] > 0.9
    assert point["nbytes"] > loaded.problem.overhead_nbytes
    assert point["bits"] == pytest.approx(8 * point["nbytes"] / loaded.problem.layout.numel)


def test_fine_tunes_are_found_by_kind(tmp_path: Path) -> None:
    for name in ("zoo/use", "zoo/other", "lm/base", "lm/c-light", "lm/c-heavy"):
        (tmp_path / name).mkdir(parents=True)
    found = find(tmp_path / "zoo", tmp_path / "lm", tmp_path / "base")
    assert [(t.group, t.name) for t in found] == [
        ("classifiers", "use"), ("lm-light", "c-light"), ("lm-heavy", "c-heavy"),
    ]  # fmt: skip
    assert found[1].base == tmp_path / "lm" / "base"
    assert found[1].data("test") == tmp_path / "lm" / "data" / "c-light.test.jsonl"


def test_as_many_calibration_rows_as_asked(fine_tunes: list[FineTune], loaded: Loaded) -> None:
    assert loaded.problem.calibration.n_rows == 48
    few = load(fine_tunes[2], fine_tunes, "cpu", n_rows=10)
    assert few.problem.calibration.n_rows == 10
