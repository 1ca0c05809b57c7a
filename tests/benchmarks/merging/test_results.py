"""A result file keeps its rows, and refuses those of other settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.merging.results import ResultFile

if TYPE_CHECKING:
    from pathlib import Path


def open_file(out: Path, **settings: Any) -> ResultFile:
    return ResultFile(out, "nps.bench-x/1", "python -m x", "cpu", {"texts": 3, **settings})


def test_rows_stay_and_are_replaced_by_key(tmp_path: Path) -> None:
    out = tmp_path / "x.json"
    file = open_file(out)
    assert not file.has(method="a")
    file.about["base"] = {"accuracy": 0.5}
    file.put({"method": "a", "value": 1}, method="a")
    file.put({"method": "b", "value": 2}, method="b")
    again = open_file(out)
    assert again.has(method="a")
    again.put({"method": "a", "value": 3}, method="a")
    written = json.loads(out.read_text())
    values = [(row["method"], row["value"]) for row in written["rows"]]
    assert values == [("b", 2), ("a", 3)]
    assert {row["commit"] for row in written["rows"]} == {written["commit"]}
    assert written["base"] == {"accuracy": 0.5}
    assert written["schema"] == "nps.bench-x/1"
    assert written["packages"]["torch"]
    assert again.content()["rows"] == written["rows"]


def test_the_head_names_all_machines_of_the_rows(tmp_path: Path) -> None:
    out = tmp_path / "x.json"
    open_file(out).put({"method": "a"}, method="a")
    content = json.loads(out.read_text())
    content["rows"][0] |= {"commit": "abc", "device": "a GPU"}
    out.write_text(json.dumps(content))
    open_file(out).put({"method": "b"}, method="b")
    written = json.loads(out.read_text())
    assert [row["device"] == "a GPU" for row in written["rows"]] == [True, False]
    assert {"abc", written["rows"][1]["commit"]} == {*written["commit"].split(", ")}


def test_other_settings_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "x.json"
    open_file(out).put({"method": "a"}, method="a")
    with pytest.raises(ValueError, match="name another file"):
        open_file(out, texts=4)
