"""Which random numbers a task's positions are coded by, and in which stores."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formats import Container, ContainerWriter, compact, verify
from formats.canonical import load
from formats.dither import tensor_seed
from formats.errors import InvalidRecordError, MalformedIndexError
from formats.layout import FACTORS, KNOWN_FEATURES, OUTLIERS, RANKED, SUPERBLOCK, features_of
from formats.records import SparseLevels
from tests.formats.stores import dithered, plain, set_base, task_records

OLD = Path(__file__).parent / "golden" / "v1.0" / "external.nps"
OLD_TENSOR: dict[str, Any] = {"name": "layer.weight", "shape": (40, 30), "base": 1}
DITHERED = task_records(0)[4]


def create(path: Path) -> ContainerWriter:
    writer = ContainerWriter.create(path)
    set_base(writer)
    return writer


def add(writer: ContainerWriter, task_name: str, *, dither: str | None, **changes: Any) -> str:
    """Adds a task of the one dithered tensor; how that is encoded."""
    arguments = DITHERED | changes
    with writer.begin_task(task_name, prefix="model.", dither=dither) as task:
        entry = task.add("model." + arguments.pop("name"), **arguments)
        task.finish()
    writer.commit()
    return entry.encoding


def old_record(dither: str) -> SparseLevels:
    """Of a tensor that the store of version 1.0 has."""
    seed = tensor_seed(dither, "layer.weight")
    positions = dithered(1200, seed)
    levels = np.ones(positions.size, np.int8)
    return SparseLevels(1200, positions, levels, np.ones(1, np.float32), seed)


def superblock(path: Path) -> bytes:
    return path.read_bytes()[: SUPERBLOCK.size]


def directory(path: Path, task: str) -> Any:
    with Container.open(path) as store:
        section = store.section(store.root.tasks[task].directory)
        return load(section, max_nbytes=1 << 20)


def read(path: Path, task: str) -> SparseLevels:
    with Container.open(path) as store:
        reader = store.task_reader(task)
        record = reader.record(next(iter(reader)))
    assert isinstance(record, SparseLevels)
    return record


def test_the_seed_follows_from_dither_and_the_name_in_the_base(tmp_path: Path) -> None:
    path = tmp_path / "a.nps"
    with create(path) as writer:
        assert add(writer, "one", dither="task 0") == "sparse_levels/ranked"
    assert superblock(path)[10:12] == b"\3\0"
    assert features_of(superblock(path)) == KNOWN_FEATURES == RANKED | OUTLIERS | FACTORS
    assert directory(path, "one")["dither"] == "task 0"
    assert plain(read(path, "one")) == plain(DITHERED["record"])
    assert verify(path, "decode") == []


def test_dither_is_noted_only_where_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "a.nps"
    record = replace(DITHERED["record"], seed=None)
    with create(path) as writer:
        assert add(writer, "one", dither="task 0", record=record) == "sparse_levels/rice"
    assert "dither" not in directory(path, "one")
    assert plain(read(path, "one")) == plain(record)


@pytest.mark.parametrize("dither", [None, "task 1"])
def test_records_of_other_random_numbers_are_refused(tmp_path: Path, dither: str | None) -> None:
    with create(tmp_path / "a.nps") as writer, pytest.raises(InvalidRecordError, match="seed"):
        add(writer, "one", dither=dither)


def test_new_tensors_and_appended_rows_have_no_random_numbers(tmp_path: Path) -> None:
    record = DITHERED["record"]
    with create(tmp_path / "a.nps") as writer:
        with pytest.raises(InvalidRecordError, match="seed"):
            add(writer, "one", dither="task 0", base=None, name="new")
        with pytest.raises(InvalidRecordError, match="seed"):
            add(writer, "one", dither="task 0", shape=(96, 64), extra=record)


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_seeds_have_64_bits(tmp_path: Path, seed: int) -> None:
    record = replace(DITHERED["record"], seed=seed)
    with create(tmp_path / "a.nps") as writer, pytest.raises(InvalidRecordError, match="range"):
        add(writer, "one", dither="task 0", record=record)


@pytest.mark.parametrize("dither", ["", "a\0b", "x" * 4097])
def test_dither_is_a_name(tmp_path: Path, dither: str) -> None:
    with create(tmp_path / "a.nps") as writer, pytest.raises(MalformedIndexError, match="dither"):
        writer.begin_task("one", dither=dither)


def test_a_store_of_version_1_0_stays_one_until_it_is_compacted(tmp_path: Path) -> None:
    path = tmp_path / "a.nps"
    shutil.copyfile(OLD, path)
    with ContainerWriter.open(path) as writer:
        record = old_record("two")
        assert add(writer, "two", dither="two", record=record, **OLD_TENSOR) == "sparse_levels/rice"
    assert superblock(path) == superblock(OLD)
    assert "dither" not in directory(path, "two")
    assert plain(read(path, "two")) == plain(replace(record, seed=None))

    compact(path)
    assert features_of(superblock(path)) == KNOWN_FEATURES
    with ContainerWriter.open(path) as writer:
        record = old_record("four")
        assert add(writer, "four", dither="four", record=record, **OLD_TENSOR).endswith("ranked")
    assert plain(read(path, "four")) == plain(record)
    assert verify(path, "decode") == []
