"""Every bad input ends in one clear sentence, its own exit code, and nothing half-written."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from nps_store import errors
from tests.cli.conftest import snapshot
from tests.nps_store.models import cast, edit, shard, write_rows

QUICK = "--keep=0.02"


class Place:
    """A directory with what a bad command could damage."""

    def __init__(self, root, zoo, stored):
        self.root, self.zoo = root, zoo
        self.store = shutil.copy(stored, root / "tasks.nps")
        self.out = root / "out.nps"
        self.scrap = root.parent / f"{root.name}-scrap"
        self.scrap.mkdir()

    def task(self, name="five", directory=None):
        return f"--task={name}={directory or self.zoo.dense(name)}"

    def compress(self, *more, base=None, task=None):
        return ["compress", f"--base={base or self.zoo.base}", task or self.task(),
                f"--out={self.out}", *more]  # fmt: skip

    def add(self, *more, task=None):
        return ["add", self.store, task or self.task(), *more]

    def edited(self, change, source=None):
        return edit(source or self.zoo.dense("five"), self.scrap / "edited", change)

    def rows(self, *rows):
        return write_rows(self.scrap / "rows.jsonl", rows)

    def journal(self, content):
        """A directory with a journal of task five."""
        directory = self.scrap / "journal"
        directory.mkdir()
        (directory / "five.jsonl").write_text(content)
        return directory

    def text(self, content):
        path = self.scrap / "rows.jsonl"
        path.write_text(content)
        return path


@pytest.fixture
def place(tmp_path, zoo, stored):
    root = tmp_path / "place"
    root.mkdir()
    return Place(root, zoo, stored)


def fill(value, name="bert.pooler.dense.bias"):
    return lambda tensors: tensors[name].fill_(value)


CASES = {
    # name: (command, error, words of the sentence)
    "base missing": (
        lambda p: p.compress(QUICK, base=p.root / "nope"),
        errors.ModelDirectoryMissingError, "nope: no such directory"),
    "task missing": (
        lambda p: p.compress(QUICK, task=p.task("x", p.root / "nope")),
        errors.ModelDirectoryMissingError, "nope: no such directory"),
    "task is a file": (
        lambda p: p.compress(QUICK, task=p.task("x", p.store)),
        errors.NotAModelDirectoryError, "tasks.nps: is a file; expected a Hugging Face model"),
    "base is a file": (
        lambda p: p.compress(QUICK, base=p.store),
        errors.NotAModelDirectoryError, "tasks.nps: is a file; expected a Hugging Face model"),
    "base of a store is a file": (
        lambda p: ["export", p.store, "two", f"--out={p.root / 'x'}", f"--base={p.store}"],
        errors.BaseNotFoundError, "tasks.nps: is a file; expected the directory"),
    "base is no model": (
        lambda p: p.compress(QUICK, base=p.root),
        errors.NotAModelDirectoryError, "no config.json"),
    "task is no model": (
        lambda p: p.add(QUICK, task=p.task("x", p.root)),
        errors.NotAModelDirectoryError, "no config.json"),
    "store missing": (
        lambda p: ["ls", p.root / "none.nps"],
        errors.NoSuchFileError, "none.nps: no such file"),
    "store missing for add": (
        lambda p: ["add", p.root / "none.nps", p.task()],
        errors.NoSuchFileError, "none.nps: no such file"),
    "store missing for rm": (
        lambda p: ["rm", p.root / "none.nps", "two"],
        errors.NoSuchFileError, "none.nps: no such file"),
    "store missing for verify": (
        lambda p: ["verify", p.root / "none.nps"],
        errors.NoSuchFileError, "none.nps: no such file"),
    "store is a directory": (
        lambda p: ["ls", p.root], errors.InputOutputError, "directory"),
    "base of another store": (
        lambda p: ["export", p.store, "two", f"--out={p.root / 'x'}",
                   f"--base={p.edited(fill(1.0, 'pooler.dense.bias'), p.zoo.base)}"],
        errors.BaseMismatchError, "tensor 'pooler.dense.bias' differs"),
    "base of another store for add": (
        lambda p: p.add(QUICK, f"--base={p.edited(fill(1.0, 'pooler.dense.bias'), p.zoo.base)}"),
        errors.BaseMismatchError, "tensor 'pooler.dense.bias' differs"),
    "base gone": (
        lambda p: ["eval", p.store, "two", f"--data={p.zoo.data('two')}", "--base=/nope"],
        errors.BaseNotFoundError, "--base"),
    "NaN": (
        lambda p: p.compress(QUICK, task=p.task("x", p.edited(fill(float("nan"))))),
        errors.NonFiniteWeightError, "'bert.pooler.dense.bias' holds 32 NaN or Inf"),
    "Inf": (
        lambda p: p.add(QUICK, task=p.task("x", p.edited(fill(float("inf"))))),
        errors.NonFiniteWeightError, "'bert.pooler.dense.bias' holds 32 NaN or Inf"),
    "Inf in the base": (
        lambda p: p.compress(
            QUICK, base=p.edited(fill(float("inf"), "pooler.dense.bias"), p.zoo.base)),
        errors.NonFiniteWeightError, "'pooler.dense.bias' holds 32 NaN or Inf"),
    "shape": (
        lambda p: p.compress(QUICK, task=p.task("x", p.edited(
            lambda t: t.update({"bert.pooler.dense.bias": torch.zeros(3)})))),
        errors.ShapeMismatchError, "'bert.pooler.dense.bias' has shape [3]; expected [32]"),
    "unrelated": (
        lambda p: p.compress(QUICK, task=p.task("x", p.edited(
            lambda t: [t.pop(name) for name in list(t)[1:]]))),
        errors.UnrelatedModelError, "fine-tune of this base"),
    "name twice": (
        lambda p: p.compress(QUICK, p.task("five", p.zoo.dense("two"))),
        errors.TaskExistsError, "task 'five' is named twice"),
    "name in the store": (
        lambda p: p.add(QUICK, task=p.task("two")),
        errors.TaskExistsError, "task 'two' is in the store"),
    "store exists": (
        lambda p: ["compress", f"--base={p.zoo.base}", p.task(), f"--out={p.store}"],
        errors.StoreExistsError, "already exists"),
    "unknown task": (
        lambda p: ["export", p.store, "nope", f"--out={p.root / 'x'}"],
        errors.TaskNotFoundError, "no such task: expected one of: three, two, got 'nope'"),
    "unknown task for rm": (
        lambda p: ["rm", p.store, "two", "nope"], errors.TaskNotFoundError, "'nope'"),
    "unknown task for inspect": (
        lambda p: ["inspect", p.store, "nope"], errors.TaskNotFoundError, "'nope'"),
    "empty calibration": (
        lambda p: p.compress(f"--calib=five={p.text('')}"),
        errors.CalibrationError, "no examples"),
    "calibration missing": (
        lambda p: p.compress(f"--calib=five={p.root / 'nope'}"),
        errors.CalibrationError, "nope: cannot be read"),
    "unreadable line": (
        lambda p: p.compress("--calib", "five=" + str(p.text('{"text": "a"}\n{"text": \n'))),
        errors.CalibrationError, "line 2 is not JSON"),
    "line without text": (
        lambda p: p.add("--calib", "five=" + str(p.text('{"text": "a"}\n\n{"label": 1}\n'))),
        errors.CalibrationError, "line 3: expected an object"),
    "label that the head lacks": (
        lambda p: p.compress("--calib", f"five={p.rows(*[('a', 'zebra')] * 4)}"),
        errors.CalibrationError, "label 'zebra' is none of the head's"),
    "labels missing": (
        lambda p: p.compress("--calib", f"five={p.rows(*[('a', None)] * 2)}", "--objective=loss"),
        errors.CalibrationError, "has no label"),
    "one example": (
        lambda p: p.compress("--calib", f"five={p.rows(('a', 'a'))}"),
        errors.CalibrationError, "at least 2"),
    "no workers": (
        lambda p: p.compress("--jobs=0"), errors.BadOptionError, "--jobs is 0"),
    "journal in a file": (
        lambda p: p.compress(QUICK, f"--journal={p.text('x')}"),
        errors.BadOptionError, "expected a directory"),
    "journal of something else": (
        lambda p: p.compress(
            f"--calib=five={p.zoo.data('five')}", f"--journal={p.journal('{}' + chr(10))}"),
        errors.JournalMismatchError, "five.jsonl: the journal is of another search"),
    "journal that is none": (
        lambda p: p.compress(
            f"--calib=five={p.zoo.data('five')}", f"--journal={p.journal('x' + chr(10))}"),
        errors.JournalDamagedError, "five.jsonl: not a line of a journal (line 1)"),
    "stranger": (
        lambda p: p.compress(QUICK, task=p.task("x", p.edited(
            lambda t: [w.copy_(torch.randn(w.shape)) for w in t.values()]))),
        errors.UnrelatedModelError, "not a fine-tune of this base"),
    "evaluation data": (
        lambda p: ["eval", p.store, "two", f"--data={p.text('x')}"],
        errors.CalibrationError, "line 1 is not JSON"),
    "target and keep": (
        lambda p: p.compress("--target=0.9", "--keep=0.1"),
        errors.BadOptionError, "at most one of"),
    "exact and keep": (
        lambda p: p.add("--method=exact", "--keep=0.1"), errors.BadOptionError, "lossless"),
    "target without data": (
        lambda p: p.compress("--target=0.9"), errors.BadOptionError, "--calib five=FILE.jsonl"),
    "keep of nothing": (
        lambda p: p.compress("--keep=0"), errors.BadOptionError, "--keep is 0"),
    "calibration of nobody": (
        lambda p: p.compress(f"--calib=nobody={p.zoo.data('two')}"),
        errors.BadOptionError, "'nobody', which no --task gives"),
    "calibration twice": (
        lambda p: p.compress(*[f"--calib=five={p.zoo.data('five')}"] * 2),
        errors.BadOptionError, "twice"),
    "task without a name": (
        lambda p: p.compress(task=f"--task={p.zoo.dense('two')}"),
        errors.BadOptionError, "expected NAME=PATH"),
    "dtype": (lambda p: p.compress("--dtype=float8"), errors.BadOptionError, "F32, F16 or BF16"),
    "device": (
        lambda p: ["eval", p.store, "two", f"--data={p.zoo.data('two')}", "--device=abacus"],
        errors.BadOptionError, "--device is 'abacus'"),
    "out in no directory": (
        lambda p: ["compress", f"--base={p.zoo.base}", p.task(), f"--out={p.root / 'a' / 'b'}"],
        errors.BadOptionError, "no such directory to put b in"),
    "budget": (
        lambda p: p.add("--max-bytes=500"), errors.BudgetTooSmallError, "fits 500 bytes"),
    "export below a file": (
        lambda p: ["export", p.store, "two", f"--out={p.store / 'x' / 'y'}"],
        errors.BadOptionError, "tasks.nps: is a file; expected a directory to put y in"),
    "export over something else": (
        lambda p: ["export", p.store, "two", f"--out={p.root}", "--overwrite"],
        errors.StoreExistsError, "is no model directory"),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(CASES))
def test_bad_input_is_refused_and_harms_nothing(nps, place, case):
    command, error, words = CASES[case]
    arguments = command(place)
    before = snapshot(place.root)
    result = nps(*arguments)
    assert words in result.sentence
    assert (result.code, result.out) == (error.exit_code, "")
    assert snapshot(place.root) == before

    told = nps(*arguments, "--json")
    fields = json.loads(told.err.splitlines()[-1])["error"]
    assert (told.code, told.out) == (error.exit_code, "")
    assert fields["id"] == error.id
    assert snapshot(place.root) == before


@pytest.mark.parametrize("breakage", ["cut", "flipped root", "text", "empty"])
def test_what_is_no_store_or_a_broken_one(nps, place, breakage):
    content = bytearray(place.store.read_bytes())
    if breakage == "cut":
        content = content[: len(content) // 2]
    elif breakage == "flipped root":
        content[len(content) - 300] ^= 1
    else:
        content = b"" if breakage == "empty" else b"hello world\n" * 1000
    place.store.write_bytes(content)
    for arguments in (
        ["ls", place.store], ["inspect", place.store], ["rm", place.store, "two"], place.add(QUICK),
        ["compact", place.store], ["export", place.store, "two", f"--out={place.root / 'x'}"],
    ):  # fmt: skip
        before = snapshot(place.root)
        result = nps(*arguments)
        assert 10 <= result.code <= 24
        assert str(place.store) in result.sentence
        assert snapshot(place.root) == before
    assert nps("verify", place.store).code in {3, *range(10, 25)}


def test_heads_grown_vocabularies_and_dtypes_are_no_bad_input(nps, place):
    """What differs for good reasons is accepted."""
    half = cast(place.zoo.dense("two"), place.scrap / "half", torch.bfloat16)
    shards = shard(place.zoo.dense("three"), place.scrap / "shards")
    result = nps("add", place.store, place.task("half", half), place.task("shards", shards), QUICK)
    assert result.code == 0
