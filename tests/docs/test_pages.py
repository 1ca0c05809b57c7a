"""Every command of the pages works as it is copied, and answers what the page says."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from fastapi.testclient import TestClient

from benchmarks import documents
from benchmarks.machine import ROOT
from server.app import create_app
from server.settings import Settings
from tests.docs.shell import commands, furnish, needs_curl, run
from tests.server.toy import ToyEngine

PAGES = [path.name for path in sorted((ROOT / "docs").glob("*.md"))]
RUN = {"quickstart.md", "own-fine-tunes.md", "choosing-a-target.md", "operations.md"}
ELSEWHERE = {"language-models.md"}
"""In `tests/server/engines/vllm`, where there is vLLM."""


@pytest.fixture
def folder(tmp_path, zoo):
    furnish(tmp_path, zoo)
    return tmp_path


@pytest.fixture
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def test_every_page_with_commands_is_run_here():
    assert {name for name in PAGES if commands(f"docs/{name}")} == RUN | ELSEWHERE


@pytest.mark.slow
@needs_curl
def test_quick_start(home):
    out = run(commands("docs/quickstart.md"), ROOT, home)
    answers = [json.loads(line) for line in re.findall(r'\{"id":.*?\]\S*?\}\}', out)]
    assert [answer["model"] for answer in answers] == ["role", "use", "section"]
    assert answers[0]["data"][0]["label"] == "shared-lib"


@pytest.mark.slow
@needs_curl
def test_own_fine_tunes(folder, home):
    out = run(commands("docs/own-fine-tunes.md"), folder, home)
    labels = re.findall(r'"label":"(\w+)"', out)
    assert labels == ["tool", "game", "library"]
    assert (folder / "report.html").stat().st_size > 10_000
    assert (folder / "role-again" / "model.safetensors").is_file()
    for name in ("footprint", "quality", "switch", "serve"):
        result = json.loads((folder / f"bench-{name}.json").read_text())
        assert result["schema"].startswith("nps.bench-")
    assert json.loads((folder / "bench-serve.json").read_text())["runs"][0]["n_errors"] == 0


@pytest.mark.slow
def test_choosing_a_target(folder, home):
    run(commands("docs/choosing-a-target.md"), folder, home)
    sizes = {path.stem: path.stat().st_size for path in folder.glob("*.nps")}
    assert set(sizes) == {"by-target", "by-keep", "by-size", "exact"}
    assert max(sizes, key=sizes.__getitem__) == "exact"


@pytest.mark.slow
@needs_curl
def test_operations(folder, home):
    run("nps compress --base base --out tasks.nps --task role=finetunes/role --keep 0.1",
        folder, home)  # fmt: skip
    out = run(commands("docs/operations.md"), folder, home, ADMIN_KEY="secret")
    assert "nps_tasks_ready" in out
    assert '"task":"role"' in out


def test_probes_ask_routes_that_there_are():
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/operations.md").read_text(), re.S)
    (container,) = yaml.safe_load(block)["containers"]
    (port,) = container["ports"]
    with TestClient(create_app(Settings(), ToyEngine.with_tasks(role=2))) as client:
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert client.get(container[name]["httpGet"]["path"]).status_code != 404
            assert container[name]["httpGet"]["port"] == port["containerPort"]


def test_metrics_that_pages_name_exist():
    known = set(re.findall(r"`(nps_\w+)`", documents.PARTS["metrics_table"]()))
    named = set(re.findall(r"`(nps_\w+)`", (ROOT / "docs/operations.md").read_text()))
    assert named <= known


@pytest.mark.parametrize("page", [*(f"docs/{name}" for name in PAGES), "README.md"])
def test_links_lead_somewhere(page):
    path = ROOT / page
    for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), f"{page}: {link}"
