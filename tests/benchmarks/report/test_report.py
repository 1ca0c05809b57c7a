"""The page stands alone, holds a plot for each result, and a real browser shows it."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html import escape

import numpy as np
import pytest

from benchmarks.load.measure import Load, measure
from benchmarks.recorded import RESULTS
from benchmarks.report import scale, write_report
from benchmarks.report.svg import Bar, Series, bars, chart
from nps_store.cli import run
from nps_store.errors import BadOptionError
from tests.benchmarks.load.server import running
from tests.browser import DARK, needs_chromium, show

NAMES = ("quality", "footprint", "switch", "switch_gpu", "shipped", "fusion", "transfer")
N_PLOTS = 3 + 1 + 1 + 1 + 1 + 1 + 2
"""Three groups of models, one of storage, of each kind of switch and of recipe, two of the load."""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    with running() as server:
        load = Load("/classify", ("zipf", "uniform"), ("quick", "slow"), 20.0, 0.5)
        (folder / "serve.json").write_text(json.dumps(measure(server.url, load)))
    files = [*(RESULTS / f"{name}.json" for name in NAMES), folder / "serve.json"]
    words = ["report", *map(str, files), f"--out={folder / 'report.html'}"]
    assert run(words) == 0
    return folder / "report.html"


def plots(html: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r'<svg class="plot".*?</svg>', html, re.S)]


def test_nothing_is_fetched(page):
    html = page.read_text()
    assert not re.search(r"<script|@import|url\(|src=|href=\"(?!data:)", html)


def test_every_result_has_its_plots(page):
    found = plots(page.read_text())
    assert len(found) == N_PLOTS
    assert all(svg.findall(".//circle") or svg.findall(".//rect") for svg in found)


def test_numbers_of_the_page_are_those_of_the_results(page):
    html = page.read_text()
    for row in json.loads((RESULTS / "shipped.json").read_text())["tasks"]:
        assert f"<td>{row['task']}</td><td>{row['dense']:.4g}</td>" in html
    commit = json.loads((RESULTS / "quality.json").read_text())["commit"]
    assert html.count(f"commit {commit}") >= 3


@needs_chromium
@pytest.mark.parametrize(
    ("size", "options"), [((1180, 2400), ()), ((1180, 2400), (DARK,)), ((390, 2400), ())]
)
def test_a_browser_shows_it(page, tmp_path, size, options):
    from matplotlib.image import imread

    shown = show(page, tmp_path, *options, size=size)
    assert shown.console == []
    assert shown.dom.count('class="plot"') == N_PLOTS
    image = imread(shown.picture)
    assert image.shape[:2] == size[::-1]
    is_dark = image[..., :3].mean() < 0.5
    assert is_dark == bool(options)
    assert image[..., :3].reshape(-1, 3).std(0).min() > 0.05
    assert len(np.unique((image[::2, ::2, :3] * 15).astype(int).reshape(-1, 3), axis=0)) > 30


@needs_chromium
def test_a_phone_has_nothing_to_scroll_sideways(page, tmp_path):
    """In a frame, as a window of Chromium may not be so narrow."""
    told = "<script>parent.document.title = document.documentElement.scrollWidth</script></body>"
    inner = escape(page.read_text().replace("</body>", told))
    (tmp_path / "phone.html").write_text(f'<iframe width="390" height="800" srcdoc="{inner}">')
    shown = show(tmp_path / "phone.html", tmp_path)
    (width,) = re.findall(r"<title>(\d+)</title>", shown.dom)
    assert int(width) <= 390


def test_throughput_of_vllm_is_drawn_by_way(tmp_path):
    about = json.loads((RESULTS / "switch_gpu.json").read_text())
    way = {"tokens_per_s": 900.0, "first_token_s": {"p50": 0.1, "p99": 0.2, "max": 0.3}}
    rounds = [{"ours": way, "reload": way | {"tokens_per_s": 30.0, "first_token_s": {}}}]
    result = about | {"schema": "nps.bench-vllm-serving/1", "tasks": 8, "size": "8b"}
    (tmp_path / "vllm.json").write_text(json.dumps(result | {"rounds": rounds}))
    write_report([tmp_path / "vllm.json"], tmp_path / "out.html")
    (svg,) = plots((tmp_path / "out.html").read_text())
    widths = [float(r.get("width")) for r in svg.iter("rect") if r.get("class") != "track"]
    assert widths == pytest.approx([420, 14])


@pytest.mark.parametrize("content", ['{"schema": "nps.ls/1"}', "{}", "[1]", "no json"])
def test_what_is_no_result_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(BadOptionError, match=r"x\.json"):
        write_report([tmp_path / "x.json"], tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


def test_results_without_a_section_are_left_out(tmp_path, capsys):
    files = [str(RESULTS / name) for name in ("claims.json", "shipped.json")]
    assert run(["report", *files, f"--out={tmp_path / 'out.html'}", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["left_out"] == files[:1]
    assert "claims.json: left out" in told.err
    with pytest.raises(BadOptionError, match="no result has a section"):
        write_report([RESULTS / "claims.json"], tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()


def test_a_chart_puts_values_where_they_belong():
    axis = scale.logarithmic([1, 100])
    assert axis.place(axis.low) == 0
    assert axis.place(axis.high) == 1
    assert axis.place(10) == pytest.approx(0.5)
    assert scale.quality([0.9]).place(1.0) == 1
    line = Series("a < b", [(1, 100), (100, 1)])
    svg = ET.fromstring(chart([line], axis, axis, x_label="x", y_label="y"))
    (x0, y0), (x1, y1) = ((float(c.get("cx")), float(c.get("cy"))) for c in svg.iter("circle"))
    assert x0 < x1
    assert y0 < y1  # downwards


def test_bars_are_as_long_as_what_they_stand_for():
    svg = ET.fromstring(bars([Bar("a", [("own", 2)], ""), Bar("b", [("base", 1), ("own", 3)], "")]))
    widths = [float(r.get("width")) for r in svg.iter("rect") if r.get("class") != "track"]
    assert widths == pytest.approx([210, 105, 315])
