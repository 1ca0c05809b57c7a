"""What people see while tasks are compressed: rows on a terminal, lines in a file, else nothing."""

from __future__ import annotations

import os
import pty
import re
import subprocess

import pytest

from nps_store.cli.progress import CompressProgress, Row
from tests.cli.processes import NPS

ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


def drain(fd: int) -> bytes:
    """All that is written to a terminal until nobody holds it any more."""
    content = b""
    while True:
        try:
            part = os.read(fd, 65536)
        except OSError:  # how Linux says end of file here
            return content
        if not part:
            return content
        content += part


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 200])
def test_a_terminal_shows_each_task_in_a_row_of_its_own(zoo, tmp_path, columns):
    ours, theirs = pty.openpty()
    tasks = [
        f"--{what}={name}={directory}"
        for name in ("three", "two")
        for what, directory in (("task", zoo.dense(name)), ("calib", zoo.data(name)))
    ]
    command = [NPS, "compress", "--base", zoo.base, *tasks, "--out", tmp_path / "s.nps",
               "--keep=0.03", "--evaluations=300", "--steps=30", "--jobs=2"]  # fmt: skip
    env = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=env) as process:
        os.close(theirs)
        shown = ESCAPE.sub(b"", drain(ours)).decode()
        out = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0
    assert out.startswith(b"task")
    for name in ("two", "three"):
        assert re.search(rf"{name} +(search at 3\.000%: best 0|load)", shown)
        assert re.search(rf"{name} +learn at 3\.000%: step [1-9]\d* of 30", shown)
        assert f"{name}: done" in shown
    assert re.search(r"best 0\.\d{4}, \d+ tried", shown)
    if columns == 200:
        assert re.search(r"tried, \u2264 0:\d\d left to search", shown)
    assert max(len(line) for line in re.split(r"[\r\n]+", shown)) <= columns


def test_a_file_gets_whole_lines(capsys):
    with CompressProgress(quiet=False) as progress:
        progress.stage("[b]", "check")
        progress.stage("[b]", "search")
        progress.trial("[b]", 0.01, 0.5, 1)
        progress.note("[b]", "a sentence " * 30)
        progress.stage("[b]", "done")
    assert capsys.readouterr() == (
        "", f"[b]: check\n[b]: search\n[b]: note: {'a sentence ' * 30}\n[b]: done\n"
    )  # fmt: skip


def test_nothing_is_shown_beside_json(capsys):
    with CompressProgress(quiet=True) as progress:
        progress.stage("a", "check")
        progress.note("a", "text")
    assert capsys.readouterr() == ("", "")


def test_best_and_pace_are_those_of_the_rate(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("nps_store.cli.progress.time.monotonic", lambda: now[0])
    row = Row(0)
    for number, loss in enumerate([0.5, 0.2, 0.3]):
        now[0] = 100.0 + 2 * number
        row.add_trial(0.1, loss)
    assert (row.best, row.trials.count, row.trials.left_s(10)) == (0.2, 3, 14)
    assert row.trials.left_s(2) == 0
    for done in (1, 2, 3):
        now[0] += 5
        row.add_step(done)
    assert (row.steps.count, row.steps.left_s(10)) == (3, 35)
    row.add_trial(0.05, 0.4)
    assert (row.best, row.trials.count, row.trials.left_s(10)) == (0.4, 1, float("inf"))
    row.add_step(1)
    assert (row.steps.count, row.steps.left_s(10)) == (1, float("inf"))


@pytest.mark.parametrize(
    ("search_seconds", "left"), [(None, (None, "1:10", "1:07")), (40, ("0:40", "0:37", "0:35"))]
)
def test_the_row_tells_how_long_it_learns(monkeypatch, search_seconds, left):
    now = [100.0]
    monkeypatch.setattr("nps_store.cli.progress.time.monotonic", lambda: now[0])
    with CompressProgress(quiet=False, search_seconds=search_seconds) as progress:
        progress.stage("a", "search")
        progress.trial("a", 0.01, 0.5, 1)
        progress.stage("a", "learn")
        (shown,) = progress._bar.tasks
        for done, clock in enumerate(left, 1):
            progress.step("a", done, 30)
            more = "" if clock is None else f", \u2264 {clock} left to learn"
            assert shown.fields["what"] == f"learn at 1.000%: step {done} of 30{more}"
            now[0] += 2.5
