"""Power fails at any point: the store is the old or the new generation, whole, always."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from formats import Container, ContainerWriter, compact, verify
from formats import roots as roots_module
from formats.errors import FormatError
from formats.layout import SLOT, SLOT_OFFSETS
from formats.sources import BytesSource
from tests.formats.disk import Disk
from tests.formats.stores import add_task, build, contents, set_base, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CRASHES_A_POINT = 15


def add(path: Path) -> None:
    with ContainerWriter.open(path) as writer:
        add_task(writer, "new", 9)
        writer.commit()


def remove(path: Path) -> None:
    with ContainerWriter.open(path) as writer:
        writer.remove_task("one")
        writer.commit()


def replace(path: Path) -> None:
    with ContainerWriter.open(path) as writer:
        writer.remove_task("two")
        add_task(writer, "two", 8)
        writer.commit()


def give_up(path: Path) -> None:
    with ContainerWriter.open(path) as writer:
        add_task(writer, "new", 9)


def shrink(path: Path) -> None:
    compact(path)


def recreate(path: Path) -> None:
    with ContainerWriter.create(path, overwrite=True) as writer:
        set_base(writer)
        add_task(writer, "other", 5)
        writer.commit()


OPERATIONS = [add, remove, replace, give_up, shrink, recreate]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots_module, "RETRY_PAUSE_S", 0)


def read(files: dict[str, bytes]) -> tuple[int, dict[str, Any]]:
    with Container.open_source(BytesSource(files["a.nps"])) as store:
        return store.generation, contents(store)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("start", ["sound", "leftovers", "damaged slot"])
def test_old_or_new(tmp_path: Path, operation: Callable[[Path], None], start: str) -> None:
    chance = random.Random(f"{operation.__name__} {start}")  # noqa: S311
    path = build(tmp_path / "a.nps", "one", "two", storage="embedded")
    with ContainerWriter.open(path) as writer:
        writer.set_recipe("both", ["one", "two"])
        writer.commit()
    if start == "leftovers":
        leave_an_unfinished_commit(path)
    if start == "damaged slot":
        data = bytearray(path.read_bytes())
        data[SLOT_OFFSETS[1] : SLOT_OFFSETS[1] + SLOT.size] = bytes(SLOT.size)
        path.write_bytes(data)
    old = read({"a.nps": path.read_bytes()})
    disk = Disk(tmp_path)
    with disk.recording():
        operation(path)
    new = read({"a.nps": path.read_bytes()})
    outcomes: Counter[str] = Counter()
    for point in range(len(disk.events) + 1):
        for _ in range(CRASHES_A_POINT):
            found = read(disk.crash(point, chance))
            assert found in (old, new), f"before event {point} of {len(disk.events)}"
            outcomes["new" if found == new else "old"] += 1
    for _ in range(CRASHES_A_POINT):  # what returned is durable
        assert read(disk.crash(len(disk.events), chance)) == new
    print(f"{outcomes.total()} crashes of {operation.__name__} ({start}): {dict(outcomes)}")  # noqa: T201
    assert outcomes["new"]
    assert outcomes["old"] or operation is give_up


def leave_an_unfinished_commit(path: Path) -> None:
    """A durable trailer of another next generation: its writer died before the slot."""
    before = path.read_bytes()
    with ContainerWriter.open(path) as writer:
        add_task(writer, "never", 4)
        writer.commit()
    path.write_bytes(before + path.read_bytes()[len(before) :])


def test_writers_go_on_after_a_crash(tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311
    path = build(tmp_path / "a.nps", "one", "two")
    n_crashes = 0
    for _ in range(12):
        disk = Disk(tmp_path)
        before = path.read_bytes()
        for operation in (replace, shrink):
            path.write_bytes(before)
            with disk.recording():
                operation(path)
            for name, data in disk.crash(chance.randrange(len(disk.events)), chance).items():
                (tmp_path / name).write_bytes(data)
            n_crashes += 1
            replace(path)
            compact(path)
            assert verify(path, "decode") == []
            assert sorted(snapshot(path)["tasks"]) == ["one", "two"]
            assert [p.name for p in tmp_path.iterdir()] == ["a.nps"]
            disk = Disk(tmp_path)
            before = path.read_bytes()
    print(f"{n_crashes} crashes, each followed by a replacement and a compaction")  # noqa: T201


def test_a_crash_while_a_store_is_created_leaves_none_or_all(tmp_path: Path) -> None:
    chance = random.Random(2)  # noqa: S311
    disk = Disk(tmp_path)
    with disk.recording():
        path = build(tmp_path / "a.nps", "one")
    new = snapshot(path)
    outcomes: Counter[bool] = Counter()
    for point in range(len(disk.events) + 1):
        for _ in range(CRASHES_A_POINT):
            files = disk.crash(point, chance)
            assert "a.nps" in files or point < len(disk.events)
            if "a.nps" in files:
                assert read(files)[1] == new
            outcomes["a.nps" in files] += 1
    print(f"{outcomes.total()} crashes of a creation, {outcomes[True]} with a store")  # noqa: T201
    assert outcomes[True]
    assert outcomes[False]


def test_the_simulation_finds_a_missing_sync(tmp_path: Path) -> None:
    chance = random.Random(3)  # noqa: S311
    path = build(tmp_path / "a.nps", "one", "two")
    disk = Disk(tmp_path)
    with disk.recording():
        add(path)
    disk.events.remove(next(event for event in disk.events if event[0] == "fsync"))

    def is_lost(point: int) -> bool:
        try:
            read(disk.crash(point, chance))
        except FormatError:
            return True
        return False

    assert any(is_lost(point) for point in range(len(disk.events)) for _ in range(40))
