from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import numpy as np
import pytest

from formats import Container, ContainerWriter, compact, verify
from formats.errors import ChecksumMismatchError, StoreLockedError
from formats.records import SparseLevels
from tests.formats.stores import build, names, snapshot

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("storage", ["external", "embedded"])
def test_keeps_everything_and_gives_back_the_rest(tmp_path: Path, storage: str) -> None:
    path = build(tmp_path / "a.nps", "one", "two", "three", storage=storage)
    path.chmod(0o600)
    with ContainerWriter.open(path) as writer:
        writer.remove_task("two")
        writer.commit()
    before, size = snapshot(path), path.stat().st_size
    with Container.open(path) as store:
        hashes = {name: entry.content_hash for name, entry in store.root.tasks.items()}
        n_files = len(store.root.files)
    saved = compact(path)
    assert saved == size - path.stat().st_size > 0
    assert snapshot(path) == before
    assert verify(path, "decode") == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(tmp_path) == ["a.nps"]
    with Container.open(path) as store:
        assert store.generation == 5
        assert {name: entry.content_hash for name, entry in store.root.tasks.items()} == hashes
        assert len(store.root.files) == n_files - 1
    assert compact(path) == 0


def test_readers_of_the_old_file_go_on_and_see_the_new_generation(tmp_path: Path) -> None:
    path = build(tmp_path / "a.nps", "one", "two")
    with Container.open(path) as old:
        reader = old.task_reader("one")
        record = reader.record(next(iter(reader)))
        assert isinstance(record, SparseLevels)
        positions = record.positions.copy()
        with ContainerWriter.open(path) as writer:
            writer.remove_task("one")
            writer.commit()
        compact(path)
        again = reader.record(next(iter(reader)))
        assert isinstance(again, SparseLevels)
        assert np.array_equal(again.positions, positions)
        assert (old.generation, old.newest_generation()) == (2, 4)


def test_writers_go_on_after_it(tmp_path: Path) -> None:
    path = build(tmp_path / "a.nps", "one")
    compact(path)
    with ContainerWriter.open(path) as writer:
        writer.remove_task("one")
        assert writer.commit() == 3
    assert snapshot(path)["tasks"] == {}


def test_waits_for_the_writer(tmp_path: Path) -> None:
    path = build(tmp_path / "a.nps", "one")
    with ContainerWriter.open(path), pytest.raises(StoreLockedError):
        compact(path, timeout_s=0)


def test_damage_is_reported_and_not_carried_along(tmp_path: Path) -> None:
    path = build(tmp_path / "a.nps", "one")
    with Container.open(path) as store:
        offset = store.root.tasks["one"].first_offset
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumMismatchError, match=r"a\.nps: .*task 'one'"):
        compact(path)
    assert path.read_bytes() == data
    assert names(tmp_path) == ["a.nps"]
