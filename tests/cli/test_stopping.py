"""Commands that are stopped in the middle: what goes on later, and what must not be left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from nps_store.errors import WorkerLostError
from tests.cli.conftest import snapshot
from tests.cli.processes import NPS, environment, wait_for_the_end_of, workers_of


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize(("jobs", "method"), [(1, "nps"), (2, "topk")])
def test_a_search_that_was_killed_goes_on_to_the_identical_store(zoo, tmp_path, jobs, method):
    def arguments(place):
        place.mkdir(exist_ok=True)
        tasks = [
            f"--{what}={name}={directory}"
            for name in ("three", "two")
            for what, directory in (("task", zoo.dense(name)), ("calib", zoo.data(name)))
        ]
        return [NPS, "compress", "--base", zoo.base, "--out", place / "s.nps", "--keep=0.03",
                "--method", method, "--evaluations=200", "--journal", place / "journal",
                "--jobs", str(jobs), *tasks]  # fmt: skip

    env = {**environment(tmp_path), "SOURCE_DATE_EPOCH": "1700000000"}
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    subprocess.run(arguments(undisturbed), env=env, check=True, capture_output=True)
    journal = killed / "journal" / "three.jsonl"
    with subprocess.Popen(arguments(killed), env=env, stderr=subprocess.DEVNULL) as process:
        while not journal.exists() or journal.read_bytes().count(b"\n") < 10:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
        workers = workers_of(process)
        process.kill()
    wait_for_the_end_of(workers)
    assert not (killed / "s.nps").exists()
    n_before = journal.read_bytes().count(b"\n")
    again = subprocess.run(arguments(killed), env=env, check=True, capture_output=True, text=True)
    assert f"three: note: {n_before - 1} trials are taken from {journal}" in again.stderr
    assert snapshot(killed) == snapshot(undisturbed)


def two_jobs(zoo, place, tmp_path):
    """Two tasks that are both being searched and would never end."""
    tasks = [
        f"--{what}={name}={directory}"
        for name in ("five", "three")
        for what, directory in (("task", zoo.dense(name)), ("calib", zoo.data(name)))
    ]
    process = subprocess.Popen(
        [NPS, "compress", "--base", str(zoo.base), "--out", str(place / "new.nps"), "--jobs=2",
         "--keep=0.02", "--evaluations=10000000", *tasks],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path), text=True,
        start_new_session=True,
    )  # fmt: skip
    n_searched = 0
    while n_searched < 2:
        line = process.stderr.readline()
        assert line, "it ended before the search"
        n_searched += "search" in line
    return process


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("end", ["ctrl-c", "sigint", "a worker is killed", "killed"])
def test_however_a_command_with_workers_ends_nothing_is_left(zoo, tmp_path, end):
    """Ctrl-C of a terminal goes to all processes, a signal to one."""
    place = tmp_path / "place"
    place.mkdir()
    process = two_jobs(zoo, place, tmp_path)
    workers = workers_of(process)
    assert len(workers) == 2
    if end == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)
    elif end == "sigint":
        process.send_signal(signal.SIGINT)
    elif end == "killed":
        process.kill()
    else:
        os.kill(workers[1], signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    wait_for_the_end_of(workers)
    assert out == ""
    assert "Traceback" not in err
    assert list(place.iterdir()) == []
    if end == "killed":
        return  # nobody was there to tidy up
    assert list((tmp_path / "tmp").iterdir()) == []
    if end == "a worker is killed":
        assert process.returncode == WorkerLostError.exit_code
        assert "its worker process ended with code -9" in err.splitlines()[-1]
    else:
        assert process.returncode == 130
        assert err.splitlines()[-1] == "nps: interrupted; nothing was changed"
