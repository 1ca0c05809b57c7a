"""The command as a process of its own: signals, full disks, closed pipes."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nps_store.errors import DiskFullError, WorkerLostError
from tests.cli.conftest import snapshot
from tests.nps_store.models import cast

NPS = str(Path(sys.executable).with_name("nps"))


def environment(tmp_path):
    """A temporary directory of the test's own, so that litter shows."""
    (tmp_path / "tmp").mkdir(exist_ok=True)
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return {**inherited, "TMPDIR": str(tmp_path / "tmp")}


def limit_files(nbytes):
    """Files of the process may not grow beyond that, as on a full disk."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, nbytes))

    return limit


def command(*arguments, tmp_path, **options):
    return subprocess.run(
        [NPS, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        timeout=120,
        check=False,
        **options,
    )


def test_it_starts_quickly_and_without_torch():
    code = "import sys, nps_store.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ls_and_its_exit_codes(stored, tmp_path):
    result = command("ls", stored, tmp_path=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "two" in result.stdout
    result = command("ls", tmp_path / "none.nps", tmp_path=tmp_path)
    assert result.returncode == 46
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["compress", "add"])
def test_ctrl_c_in_the_middle_of_a_search(zoo, stored, tmp_path, verb):
    place = tmp_path / "place"
    place.mkdir()
    store = shutil.copy(stored, place / "tasks.nps")
    where = ["--base", zoo.base, "--out", place / "new.nps"] if verb == "compress" else [store]
    before = snapshot(place)
    process = subprocess.Popen(
        [NPS, verb, *map(str, where), f"--task=five={zoo.dense('five')}",
         f"--calib=five={zoo.data('five')}", "--keep=0.02", "--evaluations=10000000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path), text=True,
    )  # fmt: skip
    line = ""
    while "search" not in line:
        line = process.stderr.readline()
        assert line, "it ended before the search"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "nps: interrupted; nothing was changed"
    assert "Traceback" not in err
    assert snapshot(place) == before
    assert list((tmp_path / "tmp").iterdir()) == []


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


def workers_of(process):
    """Process ids of a command's workers."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return [pid for pid, line in lines.items() if b"spawn_main" in line]


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


def is_running(pid):
    """A zombie is not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def wait_for_the_end_of(pids):
    deadline = time.monotonic() + 20
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, "workers outlive the command"
        time.sleep(0.05)


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


@pytest.mark.slow
@pytest.mark.parametrize("what", ["compress", "add", "embed", "export", "compact"])
def test_a_full_disk(zoo, stored, tmp_path, what):
    """Files may not grow beyond what the command must write."""
    place = tmp_path / "place"
    place.mkdir()
    store = shutil.copy(stored, place / "tasks.nps")
    task = f"--task=five={zoo.dense('five')}"
    new = ["compress", "--base", zoo.base, task, "--out", place / "new.nps"]
    size = store.stat().st_size
    arguments, limit = {
        "compress": ([*new, "--method=exact"], 30_000),
        "add": (["add", store, task, "--method=exact"], size + 100),
        "embed": ([*new, "--keep=0.01", "--base-storage=embed"], 40_000),
        "export": (["export", store, "two", "--out", place / "two"], 40_000),
        "compact": (["compact", store], 12_000),
    }[what]
    if what == "compact":
        assert command("rm", store, "two", tmp_path=tmp_path).returncode == 0
    before = snapshot(place)
    result = command(*arguments, tmp_path=tmp_path, preexec_fn=limit_files(limit))
    assert result.returncode == DiskFullError.exit_code, result.stderr
    assert "no space left" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert snapshot(place) == before
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.slow
def test_a_really_full_disk(zoo, stored, tmp_path):
    """A file system with too little room, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("nothing may be mounted here")
    try:
        store = shutil.copy(stored, disk / "tasks.nps")
        before = snapshot(disk)
        for arguments in (
            ["export", store, "two", "--out", disk / "two"],
            ["add", store, f"--task=five={zoo.dense('five')}", "--method=exact"],
        ):
            result = command(*arguments, tmp_path=tmp_path)
            assert result.returncode == DiskFullError.exit_code, result.stderr
            assert "no space left" in result.stderr.splitlines()[-1]
            assert snapshot(disk) == before
        assert command("verify", store, tmp_path=tmp_path).returncode == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_full_place_for_output(stored, tmp_path, as_json):
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [NPS, "ls", str(stored), *["--json"] * as_json],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment(tmp_path),
        )  # fmt: skip
    assert result.returncode == DiskFullError.exit_code
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("more", [[], ["two"]])
def test_a_reader_that_leaves_early(stored, tmp_path, as_json, more):
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [NPS, "inspect", str(stored), *more, *["--json"] * as_json],
        stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
        env=environment(tmp_path),
    )  # fmt: skip
    os.close(writing)
    assert result.stderr == ""
    assert result.returncode == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_may_not_be_written(zoo, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    result = command("compress", "--base", zoo.base, f"--task=two={zoo.dense('two')}",
                     "--out", locked / "s.nps", tmp_path=tmp_path)  # fmt: skip
    assert result.returncode == 2


@pytest.mark.slow
def test_a_store_from_one_process_is_read_by_another(zoo, tmp_path):
    import torch

    base = cast(zoo.base, tmp_path / "base", torch.bfloat16)
    store = tmp_path / "s.nps"
    made = command("compress", "--base", "base", f"--task=two={zoo.dense('two')}",
                   f"--calib=two={zoo.data('two')}", "--keep=0.3", "--evaluations=5",
                   "--out", "s.nps", tmp_path=tmp_path, cwd=tmp_path)  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "two: search" in made.stderr
    shown = command("eval", store, "two", f"--data={zoo.data('two')}", "--json", tmp_path=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("\n") == 1
    shutil.rmtree(base)
    assert command("eval", store, "two", f"--data={zoo.data('two')}",
                   tmp_path=tmp_path).returncode == 37  # fmt: skip
