"""The command as a process of its own, and what becomes of its workers."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

NPS = str(Path(sys.executable).with_name("nps"))


def environment(tmp_path):
    """A temporary directory of the test's own, so that litter shows."""
    (tmp_path / "tmp").mkdir(exist_ok=True)
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return {**inherited, "TMPDIR": str(tmp_path / "tmp")}


def workers_of(process):
    """Process ids of a command's workers."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return [pid for pid, line in lines.items() if b"spawn_main" in line]


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
