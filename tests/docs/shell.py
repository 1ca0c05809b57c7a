"""The commands of a page, run as they stand, in a directory that has what the page speaks of."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.machine import ROOT
from tests.nps_store.models import LABELS, corpus, write_rows

if TYPE_CHECKING:
    from tests.nps_store.models import Zoo

NAMES = {"role": "two", "use": "three", "topic": "five"}
"""What the pages call the fine-tunes of the tests."""
TIMEOUT_S = 300
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


def commands(page: str) -> str:
    """All `sh` blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```sh\n(.*?)^```$", text, re.S | re.M))


def furnish(folder: Path, zoo: Zoo) -> None:
    """Base, fine-tunes and texts under the names that the pages use."""
    shutil.copytree(zoo.base, folder / "base")
    for name, known in NAMES.items():
        shutil.copytree(zoo.dense(known), folder / "finetunes" / name)
        shutil.copyfile(zoo.data(known), folder / f"{name}.jsonl")
        write_rows(folder / f"{name}.test.jsonl", corpus(LABELS[known], 64, seed=7))


def run(script: str, folder: Path, home: Path, **variables: str) -> str:
    """Run commands in a shell that stops at the first failure; what they printed.

    Whatever they leave running is ended with them.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environment = os.environ | variables | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script.replace("8000", port)],
        cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=TIMEOUT_S)
    finally:
        with_group_ended(process.pid)
    assert process.returncode == 0, f"{script}\n{out}\n{err}"
    return out


def with_group_ended(group: int) -> None:
    """End what is left of a session."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
