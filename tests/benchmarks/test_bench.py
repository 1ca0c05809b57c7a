"""`nps bench` measures what lies there, and says where each figure is from."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import zstandard

from benchmarks import recorded
from benchmarks.footprint import DENSE, OURS, measure, with_base
from benchmarks.lossless_files import LEVEL
from benchmarks.machine import ROOT
from formats.container import Container
from nps_store.cli import run
from nps_store.errors import BadOptionError
from nps_store.task import task_nbytes

SHIPPED = ROOT / "examples" / "debian-8tasks.nps"


@pytest.fixture(scope="module")
def store(zoo, tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "tasks.nps"
    tasks = [f"--task={name}={zoo.dense(name)}" for name in ("two", "three")]
    assert run(["compress", f"--base={zoo.base}", *tasks, f"--out={path}", "--keep=0.1"]) == 0
    return path


def result_of(words, out, capsys):
    capsys.readouterr()
    assert run([*map(str, words), f"--out={out}", "--json"]) == 0
    result = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == result
    assert {"schema", "command", "commit", "processor", "packages", "seed"} <= set(result)
    return result


def test_footprint_is_of_the_files(store, zoo, tmp_path, capsys):
    words = ("bench", "footprint", store, "--dense", zoo.root)
    result = result_of(words, tmp_path / "footprint.json", capsys)
    lines = {line["way"]: line for line in result["lines"]}
    files = [zoo.dense(name) / "model.safetensors" for name in ("two", "three")]
    assert lines[DENSE]["nbytes"] == sum(f.stat().st_size for f in files)
    assert lines[OURS]["nbytes"] == store.stat().st_size == result["store_nbytes"]
    with Container.open(store) as container:
        assert lines[OURS]["tasks"] == {n: task_nbytes(container, n) for n in ("three", "two")}
    frames = [zstandard.ZstdCompressor(level=LEVEL).compress(f.read_bytes()) for f in files]
    assert lines[f"zstd -{LEVEL}"]["nbytes"] == pytest.approx(sum(map(len, frames)), rel=0.01)
    assert result["base_nbytes"] == pytest.approx(
        (zoo.base / "model.safetensors").stat().st_size, rel=0.1
    )
    assert with_base(result, lines[OURS]) == result["base_nbytes"] + store.stat().st_size
    assert with_base(result, lines[DENSE]) == lines[DENSE]["nbytes"]


def test_other_fine_tunes_than_the_stored_ones_are_refused(store, zoo, tmp_path):
    shutil.copytree(zoo.dense("three"), tmp_path / "two")
    shutil.copytree(zoo.dense("three"), tmp_path / "three")
    with pytest.raises(BadOptionError, match="its weights differ"):
        measure(store, dense=tmp_path)


def test_recorded_figures_are_of_the_same_fine_tunes_only(store):
    ways = [line["way"] for line in measure(store)["lines"]]
    assert ways == [DENSE, OURS]
    shipped = measure(SHIPPED)
    ways = [line["way"] for line in shipped["lines"]]
    for peer in ("zstd", "zipnn", "BitDelta", "DeltaZip", "lossless xor"):
        assert any(way.startswith(peer) for way in ways), peer
    others = dict.fromkeys(shipped["source_hashes"], "0" * 32)
    assert list(recorded.peers(others)) == []
    assert recorded.accuracy_ratio(others) is None


def test_a_recorded_peer_is_the_sum_of_its_points():
    points = recorded.read("quality")["points"]
    expected = sum(
        point["nbytes"]
        for point in points
        if (point["method"], point["group"]) == ("BitDelta", "classifiers")
        and point["setting"] == {"bits": 1, "embeddings": False}
    )
    lines = {line["way"]: line for line in measure(SHIPPED)["lines"]}
    assert lines["BitDelta, 1 bit"]["nbytes"] == expected
    assert "quality.json" in lines["BitDelta, 1 bit"]["source"]


def test_switch(store, zoo, tmp_path, capsys):
    words = ("bench", "switch", store, "--base", zoo.base, "--rounds", 4)
    result = result_of(words, tmp_path / "switch.json", capsys)
    assert result["base_identical_afterwards"]
    for spread in result["milliseconds"].values():
        assert spread["n"] == 2
        assert 0 < spread["p0.1"] <= spread["p50"] <= spread["p99.9"]


def test_switching_takes_two_tasks(zoo, tmp_path):
    path = tmp_path / "one.nps"
    task = f"--task=two={zoo.dense('two')}"
    assert run(["compress", f"--base={zoo.base}", task, f"--out={path}", "--keep=0.1"]) == 0
    assert run(["bench", "switch", str(path), f"--out={tmp_path / 'x.json'}"]) == 2
    assert not (tmp_path / "x.json").exists()


def test_quality_is_what_eval_says(store, zoo, tmp_path, capsys):
    data, dense = f"two={zoo.data('two')}", f"two={zoo.dense('two')}"
    words = ("bench", "quality", store, "--data", data, "--dense", dense, "--base", zoo.base)
    (row,) = result_of(words, tmp_path / "quality.json", capsys)["tasks"]
    words = ("eval", store, "two", "--data", zoo.data("two"), "--dense", zoo.dense("two"))
    assert run([*map(str, words), "--base", str(zoo.base), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {key: row[key] for key in ("stored", "dense", "ratio", "gain_kept")} == {
        key: told[key] for key in ("stored", "dense", "ratio", "gain_kept")
    }


def test_quality_of_methods_on_a_folder_of_ones_own(fine_tunes, zoo, tmp_path, capsys):
    folder = fine_tunes[0].zoo
    words = ("bench", "quality", "--zoo", folder, "--base", zoo.base, "--method", "ComPEFT")
    result = result_of(words, tmp_path / "rates.json", capsys)
    assert {point["task"] for point in result["points"]} == {"two", "three", "five"}
    assert {point["group"] for point in result["points"]} == {folder.name}
    assert run(["report", str(tmp_path / "rates.json"), f"--out={tmp_path / 'r.html'}"]) == 0


@pytest.mark.parametrize(
    "words", [["a.nps"], ["--zoo", "z"], ["a.nps", "--zoo", "z", "--base", "b"], ["--data", "a=b"]]
)
def test_quality_is_of_a_store_or_of_methods(words, capsys):
    assert run(["bench", "quality", *words]) == 2
    assert "not both" in capsys.readouterr().err


def test_a_folder_without_fine_tunes_is_refused(tmp_path, zoo, capsys):
    assert run(["bench", "quality", "--zoo", str(tmp_path), "--base", str(zoo.base)]) == 2
    assert "no fine-tunes" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["a.nps", "--zoo", "zoo"]])
def test_footprint_is_of_one_store(words, capsys):
    assert run(["bench", "footprint", *words]) == 2
    assert "not both" in capsys.readouterr().err


def test_sending_requests_without_httpx_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "httpx", None)
    for name in ("measure", "send"):
        monkeypatch.delitem(sys.modules, f"benchmarks.load.{name}", raising=False)
        monkeypatch.delattr(f"benchmarks.load.{name}", raising=False)
    assert run(["bench", "serve", "http://127.0.0.1:9"]) == 2
    assert "nps-store[bench]" in capsys.readouterr().err
