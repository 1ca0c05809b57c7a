"""A crash leaves the last or the new generation; damage never falls back silently."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from formats import Container, ContainerWriter, verify
from formats.errors import NoValidRootError, TruncatedError
from formats.layout import SLOT, SLOT_OFFSETS
from tests.formats.stores import add_task, build, expected_tensors, snapshot

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def generations(tmp_path: Path) -> tuple[Path, bytes, bytes]:
    """A path, and the bytes of its store at generation 2 and 3."""
    path = build(tmp_path / "a.nps", "one", "two")
    second = path.read_bytes()
    with ContainerWriter.open(path) as writer:
        writer.remove_task("one")
        add_task(writer, "three", 2)
        writer.commit()
    return path, second, path.read_bytes()


def _put(data: bytes, offset: int, part: bytes) -> bytes:
    return data[:offset] + part + data[offset + len(part) :]


def _tasks(path: Path) -> list[str]:
    return sorted(snapshot(path)["tasks"])


def test_every_length_of_an_append_leaves_the_last_generation(
    generations: tuple[Path, bytes, bytes],
) -> None:
    path, second, third = generations
    for length in range(len(second), len(third) + 1, 61):
        path.write_bytes(second + third[len(second) : length])
        assert _tasks(path) == ["one", "two"]
        assert Container.open(path).generation == 2


def test_a_torn_slot_yields_the_generation_it_was_written_for(
    generations: tuple[Path, bytes, bytes],
) -> None:
    path, second, third = generations
    appended = second + third[len(second) :]
    offset = SLOT_OFFSETS[3 % 2]
    for torn in range(1, SLOT.size):
        path.write_bytes(_put(appended, offset, third[offset : offset + torn]))
        with Container.open(path) as store:
            assert sorted(store.root.tasks) == ["three", "two"]
            assert (store.generation, store.newest_generation()) == (3, 3)
            assert store.selection.recovered


@pytest.mark.parametrize("slot", [0, 1])
def test_a_damaged_slot_is_reported_and_repaired_by_the_next_writer(
    generations: tuple[Path, bytes, bytes], slot: int
) -> None:
    path, _, third = generations
    path.write_bytes(_put(third, SLOT_OFFSETS[slot], bytes(SLOT.size)))
    with Container.open(path) as store:
        assert store.generation == 3
        assert store.selection.damaged_slots == (slot,)
        assert store.selection.recovered == (slot == 1)
    assert [finding.id for finding in verify(path)] == ["format.root_slot_damaged"]
    with ContainerWriter.open(path):
        pass
    assert verify(path) == []
    with Container.open(path) as store:
        assert (store.generation, store.selection.damaged_slots) == (3, ())


def test_both_slots_damaged_is_recovered_from_the_last_trailer(
    generations: tuple[Path, bytes, bytes],
) -> None:
    path, _, third = generations
    for slot in SLOT_OFFSETS:
        third = _put(third, slot, b"\xff" * SLOT.size)
    path.write_bytes(third)
    assert _tasks(path) == ["three", "two"]
    with ContainerWriter.open(path) as writer:
        add_task(writer, "four", 3)
        assert writer.commit() == 4
    assert verify(path, "decode") == []
    assert snapshot(path)["tasks"]["four"][0] == expected_tensors(3)


def test_no_slot_and_no_trailer_is_an_error(generations: tuple[Path, bytes, bytes]) -> None:
    path, _, third = generations
    path.write_bytes(third[:4096] + bytes(len(third) - 4096))
    with pytest.raises(NoValidRootError, match="both root slots are damaged"):
        Container.open(path)


def test_a_slot_beyond_the_file_is_an_error_and_no_fall_back(
    generations: tuple[Path, bytes, bytes],
) -> None:
    path, second, third = generations
    for length in (len(third) - 1, len(second), 12_288):
        path.write_bytes(third[:length])
        with pytest.raises(TruncatedError, match=f"expected {len(third)} bytes"):
            Container.open(path)
        with pytest.raises(TruncatedError):
            ContainerWriter.open(path)
        assert path.stat().st_size == length


def test_a_trailer_inside_attached_bytes_is_not_taken_for_one(tmp_path: Path) -> None:
    other = build(tmp_path / "other.nps", "one").read_bytes()
    path = build(tmp_path / "a.nps", "one")
    damaged = _put(path.read_bytes(), SLOT_OFFSETS[0], bytes(SLOT.size))
    path.write_bytes(damaged + other + other[-64:])
    with Container.open(path) as store:
        assert (store.generation, store.selection.recovered) == (1, False)
