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
               "--method=topk", "--keep=0.03", "--evaluations=300", "--jobs=2"]  # fmt: skip
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
        assert f"{name}: done" in shown
    assert re.search(r"best 0\.\d{4}, \d+ tried", shown)
    if columns == 200:
        assert re.search(r"tried, \u2264 0:\d\d left", shown)
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
        row.add(0.1, loss)
    assert (row.best, row.n_trials, row.left_s(10)) == (0.2, 3, 14)
    assert row.left_s(2) == 0
    row.add(0.05, 0.4)
    assert (row.best, row.n_trials, row.left_s(10)) == (0.4, 1, float("inf"))
