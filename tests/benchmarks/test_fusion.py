"""The two benchmarks from end to end on the tiny fine-tunes: rows, resumption, tables."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import typer
from rich.console import Console

from benchmarks import fusion
from benchmarks.transfer import __main__ as transfer
from benchmarks.transfer.docstrings import STDLIB, pairs
from nps_store.compress import Options, TaskSource, compress

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.quality.tasks import FineTune


@pytest.fixture
def options(
    fine_tunes: list[FineTune], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    for module in (fusion, transfer):
        monkeypatch.setattr(module, "classifiers", lambda *_: fine_tunes)
    monkeypatch.setattr(transfer, "pairs", partial(pairs, root=STDLIB / "asyncio"))
    return {"device": "cpu", "texts": 8, "again": False, "out": tmp_path / "out.json"} | {
        "zoo": fine_tunes[0].zoo,
        "base": fine_tunes[0].base,
    }


def run_fusion(options: dict[str, Any], *methods: str) -> dict[str, Any]:
    fusion.main(**options, method=list(methods), objective="divergence", test_texts=16)
    return json.loads(options["out"].read_text())


def test_fusion_measures_what_is_missing(options: dict[str, Any]) -> None:
    first = run_fusion(options, "weight averaging")
    assert first["schema"] == "nps.bench-fusion/1"
    assert first["settings"] == {"objective": "divergence", "texts": 8, "test_texts": 16}
    tasks = {"two", "three", "five"}
    for summary in (first["individual"], first["base"], *first["rows"]):
        assert set(summary["tasks"]) == tasks
        assert summary["accuracy"] == pytest.approx(sum(summary["tasks"].values()) / 3)
    assert first["individual"]["accuracy"] > first["base"]["accuracy"]
    second = run_fusion(options, "weight averaging", "Task Arithmetic")
    assert second["rows"][0] == first["rows"][0]
    assert second["rows"][1]["tuned"]["scale"] > 0
    assert run_fusion(options, "Task Arithmetic") == second


def test_fusion_merges_a_store_that_is_there(
    options: dict[str, Any],
    fine_tunes: list[FineTune],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "all.nps"
    tasks = [TaskSource(each.name, each.path) for each in fine_tunes]
    compress(options["base"], tasks, path, options=Options(keep=0.3))
    before = path.read_bytes()
    monkeypatch.delattr("benchmarks.merging.nps.compress")
    (row,) = run_fusion({**options, "store": path}, "NPS")["rows"]
    assert row["tuned"]["recipe_nbytes"] < 1024
    assert path.read_bytes() == before


def test_fusions_table_has_the_best_first(options: dict[str, Any]) -> None:
    result = run_fusion(options, "weight averaging", "TIES")
    console = Console(width=120, record=True)
    console.print(fusion.table(result))
    names = ["individual models", "weight averaging", "TIES", "base"]
    lines = [line for line in console.export_text().splitlines() if any(n in line for n in names)]
    assert "individual models" in lines[0]
    means = [float(line.split("│")[2]) for line in lines[1:-1]]
    assert means == sorted(means, reverse=True)
    assert "base" in lines[-1]


def test_transfer_measures_what_is_missing(options: dict[str, Any]) -> None:
    chosen = {"task": ["two"], "pair_share": 0.02}
    transfer.main(**options, **chosen, method=["magnitude"])
    first = json.loads(options["out"].read_text())
    assert first["schema"] == "nps.bench-transfer/1"
    assert [row["method"] for row in first["rows"]] == ["fine-tune", "base", "magnitude"]
    assert [round(row["changed"], 2) for row in first["rows"][1:]] == [0, 0.1]
    assert 1 < first["settings"]["pairs"]["test"][0] <= 20
    transfer.main(**options, **chosen, method=["magnitude", "DARE"])
    second = json.loads(options["out"].read_text())
    assert second["rows"][:3] == first["rows"]
    assert [row["method"] for row in second["rows"][3:]] == ["DARE"]


def test_what_there_is_not_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(typer.BadParameter, match="no method 'magic'"):
        run_fusion(options, "magic")
    with pytest.raises(typer.BadParameter, match="no method 'magic'"):
        transfer.main(**options, method=["magic"])
    with pytest.raises(typer.BadParameter, match="no such classifiers"):
        transfer.main(**options, task=["none"], method=None, pair_share=0.02)
