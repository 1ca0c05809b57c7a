"""Every verb does what its help says, speaks JSON, and leaves what it should leave."""

from __future__ import annotations

import json

import pytest

from formats.container import Container
from nps_store.cli import build, run
from nps_store.store import Store
from nps_store.task import task_nbytes
from tests.nps_store.models import same, weights

VERBS = sorted(command.name or command.callback.__name__ for command in build().registered_commands)


def test_the_verbs_are_those_of_the_design():
    first = {"compress", "add", "rm", "ls", "inspect", "verify", "compact", "export", "eval"}
    assert first | {"serve", "doctor", "selftest"} <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_and_json(nps, verb):
    result = nps(verb, "--help")
    assert result.code == 0
    assert f"Example: nps {verb}" in " ".join(result.out.split())
    if verb != "serve":
        assert "--json" in result.out


def test_no_verb_is_a_usage_error_that_shows_the_verbs(nps):
    result = nps()
    assert result.code == 2
    assert "compress" in result.out + result.err


@pytest.mark.parametrize("arguments", [["nope"], ["ls"], ["ls", "x", "--nope"], ["compress"]])
def test_a_wrong_command_line_is_a_usage_error(nps, arguments):
    result = nps(*arguments)
    assert (result.code, result.out) == (2, "")
    assert "Usage" in result.err


def test_ls(nps, stored):
    document = nps("ls", stored, "--json").document
    assert document["schema"] == "nps.ls/1"
    assert [task["name"] for task in document["tasks"]] == ["three", "two"]
    with Container.open(stored) as container:
        for task in document["tasks"]:
            assert task["nbytes"] == task_nbytes(container, task["name"])
            assert task["method"] == "nps"
            assert task["dense_nbytes"] > 10 * 1024
    assert document["nbytes"] == stored.stat().st_size
    table = nps("ls", stored)
    assert table.code == 0
    assert "three" in table.out
    assert "two" in table.out


def test_inspect(nps, stored):
    document = nps("inspect", stored, "--json").document
    assert document["tasks"] == ["three", "two"]
    assert document["base"]["numel"] > 10_000
    task = nps("inspect", stored, "two", "--json").document
    assert task["name"] == "two"
    assert any(tensor["encoding"].startswith("sparse_levels") for tensor in task["tensors"])
    assert task["meta"]["source"]["name"] == "two"
    assert "classifier.weight" in nps("inspect", stored, "two").out
    assert nps("inspect", stored).code == 0


@pytest.mark.parametrize("level", ["structure", "checksums", "decode", "base"])
def test_verify(nps, stored, level):
    document = nps("verify", stored, "--level", level, "--json").document
    assert document["ok"]
    assert document["problems"] == []
    assert "no problem" in nps("verify", stored, "--level", level).out


def test_verify_reports_damage_with_exit_code_3(nps, store):
    with Container.open(store) as container:
        offset = container.root.tasks["two"].first_offset
    content = bytearray(store.read_bytes())
    content[offset + 3] ^= 1
    store.write_bytes(content)
    result = nps("verify", store, "--json")
    assert result.code == 3
    assert not result.document["ok"]
    assert any("two" in problem for problem in result.document["problems"])
    assert nps("verify", store).code == 3
    assert nps("export", store, "two", "--out", store.parent / "x").code == 15
    assert not (store.parent / "x").exists()


def test_add_replace_rm_compact(nps, store, zoo):
    task = f"--task=five={zoo.dense('five')}"
    document = nps("add", store, task, "--keep", 0.05, "--json").document
    assert [task["name"] for task in document["tasks"]] == ["five"]
    assert document["store_nbytes"] == store.stat().st_size
    assert nps("add", store, task, "--keep", 0.05).code == 35
    assert nps("add", store, task, "--keep", 0.02, "--replace").code == 0
    names = [task["name"] for task in nps("ls", store, "--json").document["tasks"]]
    assert names == ["five", "three", "two"]

    result = nps("rm", store, "five", "two", "--json")
    assert result.document["removed"] == ["five", "two"]
    before = store.stat().st_size
    saved = nps("compact", store, "--json").document
    assert saved["saved_nbytes"] == before - store.stat().st_size > 0
    assert [t["name"] for t in nps("ls", store, "--json").document["tasks"]] == ["three"]


def test_export_is_what_the_store_says(nps, stored, tmp_path):
    out = tmp_path / "two"
    document = nps("export", stored, "two", "--out", out, "--json").document
    with Store.open(stored) as opened:
        expected = opened.materialize("two")
    assert same(weights(out), expected)
    assert document["nbytes"] == sum(tensor.nbytes for tensor in expected.values())
    assert nps("export", stored, "two", "--out", out).code == 29
    assert nps("export", stored, "two", "--out", out, "--overwrite").code == 0


def test_eval(nps, stored, zoo):
    data = zoo.data("three")
    document = nps("eval", stored, "three", "--data", data, "--json").document
    assert document["metric"] == "accuracy"
    assert 0.3 < document["stored"] <= 1
    assert document["dense"] is None
    both = nps("eval", stored, "three", "--data", data, "--dense", zoo.dense("three"), "--json")
    assert both.document["ratio"] == pytest.approx(both.document["stored"] / both.document["dense"])
    assert "accuracy" in nps("eval", stored, "three", "--data", data).out


def test_compress_with_a_target_says_what_was_reached(nps, zoo, tmp_path):
    out = tmp_path / "q.nps"
    arguments = [
        "compress", "--base", zoo.base, "--task", f"two={zoo.dense('two')}",
        "--calib", f"two={zoo.data('two')}", "--target", 0.9, "--evaluations", 20, "--out", out,
    ]  # fmt: skip
    result = nps(*arguments, "--json")
    (task,) = result.document["tasks"]
    assert task["target"] == 0.9
    assert 0.8 < task["quality"]["value"] <= 1.1
    assert task["quality"]["low"] <= task["quality"]["value"] <= task["quality"]["high"]
    (listed,) = nps("ls", out, "--json").document["tasks"]
    assert listed["quality"] == task["quality"]
    assert listed["nbytes"] == task["nbytes"]
    assert result.err == ""
    again = nps(*arguments, "--overwrite")
    assert again.code == 0
    assert "two: search" in again.err


def test_names_that_look_like_markup_are_shown_as_they_are(nps, zoo, tmp_path):
    out = tmp_path / "[bold]store.nps"
    name = "ner[/v2] :smile:"
    result = nps("compress", "--base", zoo.base, "--task", f"{name}={zoo.dense('two')}",
                 "--out", out, "--keep", 0.01)  # fmt: skip
    assert result.code == 0
    assert name in result.out
    assert name in result.err
    assert name in nps("ls", out).out
    assert "[bold]store.nps" in nps("rm", out, name).out


def test_json_errors_are_one_line_of_json_on_stderr(nps, tmp_path):
    result = nps("ls", tmp_path / "none.nps", "--json")
    error = json.loads(result.err)["error"]
    assert (result.out, result.code) == ("", error["exit_code"])
    assert error["id"] == "io.no_such_file"


def test_run_leaves_no_state_behind(stored):
    assert run(["ls", str(stored)]) == run(["ls", str(stored)]) == 0
