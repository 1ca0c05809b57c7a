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

from nps_store.errors import DiskFullError
from tests.cli.conftest import snapshot
from tests.cli.processes import NPS, environment
from tests.nps_store.models import cast


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
