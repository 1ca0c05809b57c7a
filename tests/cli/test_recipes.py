"""`nps merge` and `nps transfer`, and how other verbs treat what they make."""

from __future__ import annotations

import pytest


def test_merged_tasks_are_tasks(nps, store, zoo, tmp_path):
    made = nps("merge", store, "--name=all", "--task=two", "--task=three=0.2", "--json").document
    assert made["tasks"] == ["all@two", "all@three"]
    assert made["members"] == {"two": [0.3], "three": [pytest.approx(0.06)]}
    listed = {task["name"]: task for task in nps("ls", store, "--json").document["tasks"]}
    assert listed["all@two"]["nbytes"] < 1000
    assert listed["all@two"]["method"] == "recipe: linear of 2"
    assert nps("inspect", store, "all@three", "--json").document["head"] == "three"
    assert nps("inspect", store, "--json").document["recipes"] == ["all"]
    found = nps("eval", store, "all@two", f"--data={zoo.data('two')}", "--json").document
    assert 0 <= found["stored"] <= 1
    assert nps("export", store, "all@two", f"--out={tmp_path / 'out'}").code == 0
    assert (tmp_path / "out" / "config.json").is_file()
    assert nps("verify", store, "--level=base", f"--base={zoo.base}", "--json").document["ok"]


def test_a_merge_is_learned(nps, store, zoo):
    files = [f"--calib={name}={zoo.data(name)}" for name in ("two", "three")]
    options = ["--name=learned", "--task=two", "--task=three", "--steps=20", "--groups=3"]
    result = nps("merge", store, *options, *files, "--json")
    assert "step 20: " in result.err
    members = result.document["members"]
    assert [len(weights) for weights in members.values()] == [3, 3]
    assert all(20 * w == pytest.approx(round(20 * w)) for each in members.values() for w in each)
    quality = nps("inspect", store, "learned@two", "--json").document["quality"]
    assert quality["value"] == pytest.approx(sum(quality["members"].values()) / 2)
    listed = {task["name"]: task for task in nps("ls", store, "--json").document["tasks"]}
    assert listed["learned@two"]["nbytes"] < 1000
    assert nps("verify", store, "--level=base", f"--base={zoo.base}", "--json").document["ok"]


def test_a_part_of_a_task_is_a_task(nps, store):
    made = nps("transfer", store, "--name=half", "--task=two", "--lambda=0.25", "--json").document
    assert (made["tasks"], made["members"]) == (["half"], {"two": [0.25]})


def test_dropped_changes_are_those_of_the_seed(nps, store, tmp_path):
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        options = [f"--name={name}", "--method=dare", "--drop=0.5", f"--seed={seed}"]
        assert nps("merge", store, *options, "--task=two", "--task=three").code == 0
        assert nps("export", store, f"{name}@two", f"--out={tmp_path / name}").code == 0
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "again")]
    assert files[0] == files[1] != (tmp_path / "other" / "model.safetensors").read_bytes()
    result = nps("merge", store, "--name=x", "--method=dare", "--drop=1", "--task=two")
    assert result.code == 64
    assert "share to drop" in result.sentence


def test_a_merge_with_one_row_says_what_it_was_measured_on(nps, store, zoo, tmp_path):
    one = tmp_path / "one.jsonl"
    one.write_text(zoo.data("two").read_text().splitlines()[0] + "\n")
    files = [f"--calib=two={one}", f"--calib=three={zoo.data('three')}"]
    options = ["--name=m", "--task=two", "--task=three", "--steps=0", "--evaluations=0"]
    result = nps("merge", store, *options, *files)
    assert result.code == 0
    assert "two: too few rows to set one aside" in result.err
    quality = nps("inspect", store, "m@two", "--json").document["quality"]
    assert quality["on_searched_rows"] == ["two"]


def test_a_part_of_a_task_is_searched(nps, store, zoo):
    words = [f"--calib=new={zoo.data('two')}", f"--retain=old={zoo.data('three')}", "--json"]
    options = ["--name=part", "--task=two", "--evaluations=12", "--groups=2"]
    result = nps("transfer", store, *options, *words)
    assert "of the balance lost" in result.err
    assert (result.document["rule"], result.document["tasks"]) == ("bands", ["part"])
    assert len(result.document["members"]["two"]) == 2
    found = nps("inspect", store, "part", "--json").document
    quality = found["quality"]
    assert 0 <= quality["value"] <= 1 >= quality["base"]["old"]
    listed = {task["name"]: task for task in nps("ls", store, "--json").document["tasks"]}
    assert listed["part"]["nbytes"] < 1000
    assert nps("verify", store, "--level=base", f"--base={zoo.base}", "--json").document["ok"]
    again = nps("transfer", store, *options, *words)
    assert again.code == 35
    assert "evaluation" not in again.err  # refused before the search


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--calib=new=a.jsonl"], "needs --retain NAME=FILE.jsonl"),
        (["--retain=old=a.jsonl"], "needs --calib new=FILE.jsonl"),
        (["--calib=old=a.jsonl", "--retain=old=a.jsonl"], "needs --calib new=FILE.jsonl"),
        (["--calib=new=a.jsonl", "--retain=two=a.jsonl"], "under another name"),
        (["--calib=new=a.jsonl", "--retain=old=a.jsonl", "--lambda=0.5"], "leave one out"),
        (["--calib=new=a", "--retain=old=a", "--retain=old=b"], "names 'old' twice"),
    ],
)
def test_a_search_needs_both_sides(nps, store, words, message):
    before = store.read_bytes()
    result = nps("transfer", store, "--name=part", "--task=two", *words)
    assert (result.code, store.read_bytes()) == (2, before)
    assert message in result.sentence


def test_no_search_begins_for_what_cannot_be_written(nps, store):
    made = nps("merge", store, "--name=m", "--task=two", "--task=three", "--method=ties")
    assert made.code == 0
    files = ["--calib=new=missing.jsonl", "--retain=old=missing.jsonl"]
    result = nps("transfer", store, "--name=part", "--task=m", *files)
    assert result.code == 64
    assert "only linear ones" in result.sentence


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["merge", "--name=x", "--task=two=1", "--task=three=-1", "--method=average"], 64,
         "sum to zero"),
        (["merge", "--name=x", "--task=two=nan"], 64, "expected numbers, got nan"),
        (["merge", "--name=x", "--task=two=much"], 2, "expected MEMBER or MEMBER=WEIGHT"),
        (["merge", "--name=x", "--task=two", "--task=two=2"], 2, "names 'two' twice"),
        (["merge", "--name=x", "--task=gone"], 64, "no task 'gone'"),
        (["merge", "--name=two", "--task=three"], 35, "already has 'two'"),
        (["transfer", "--name=x", "--task=two", "--lambda=inf"], 64, "got inf"),
    ],
)  # fmt: skip
def test_refusals_are_one_sentence_with_a_code(nps, store, words, code, message):
    before = store.read_bytes()
    verb, *options = words
    result = nps(verb, store, *options)
    assert (result.code, store.read_bytes()) == (code, before)
    assert message in result.sentence


def test_a_task_in_use_stays(nps, store):
    assert nps("transfer", store, "--name=half", "--task=two").code == 0
    result = nps("rm", store, "two")
    assert result.code == 66
    assert "used by recipe 'half'" in result.sentence
    assert nps("rm", store, "two", "half", "--json").document["removed"] == ["two", "half"]
