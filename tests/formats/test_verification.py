from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from formats import Container, verify
from formats.errors import BadMagicError, ChecksumMismatchError, CorruptStreamError
from formats.layout import SLOT_OFFSETS
from tests.formats.stores import build, forge

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("storage", ["external", "embedded"])
@pytest.mark.parametrize("level", ["structure", "checksums", "decode"])
def test_sound_store_has_no_findings(tmp_path: Path, storage: str, level: str) -> None:
    assert verify(build(tmp_path / "a.nps", "one", "two", storage=storage), level) == []


def test_every_damaged_part_is_reported(tmp_path: Path) -> None:
    path = build(tmp_path / "a.nps", "one", "two", storage="embedded")
    data = bytearray(path.read_bytes())
    with Container.open(path) as store:
        assert store.root.base_data is not None
        data[store.root.base_data.first_offset] ^= 1
        for entry in store.root.tasks.values():
            data[entry.first_offset] ^= 1
        stored = next(iter(store.root.files.values()))
        data[stored.section.offset] ^= 1
    path.write_bytes(data)
    assert verify(path, "structure") == []
    findings = verify(path, "checksums")
    assert {finding.id for finding in findings} == {ChecksumMismatchError.id}
    assert [finding.where.split()[0] for finding in findings] == ["base", "task", "task", "file"]
    assert all(finding.message.startswith(str(path)) for finding in findings)


def test_each_damage_is_one_finding_however_much_it_takes_along(tmp_path: Path) -> None:
    path = build(tmp_path / "a.nps", "one", storage="embedded")
    with Container.open(path) as store:
        extents = [(store.directory("one"), store.root.tasks["one"].first_offset)]
        assert store.root.base_data is not None
        extents.append((store.base_reader().directory, store.root.base_data.first_offset))
        places = [first + ref.offset for task, first in extents for _, ref in task.sections()]
        places += [stored.section.offset for stored in store.root.files.values()]
    sound = path.read_bytes()
    for place in places:
        data = bytearray(sound)
        data[place] ^= 1
        path.write_bytes(data)
        (finding,) = verify(path, "decode")
        assert [finding] == verify(path, "checksums")
        assert finding.id == ChecksumMismatchError.id
        assert finding.where.split()[0] in finding.message  # the part that it belongs to


def test_a_damaged_section_hides_nothing_in_the_sound_ones(tmp_path: Path) -> None:
    """Entries of one tensor are miscounted, and a section that holds others is damaged."""

    def drop_one(document: Any) -> None:
        document["tensors"][0]["record"]["n_kept"] -= 1

    path = forge(build(tmp_path / "a.nps", "one"), tmp_path / "b.nps", directory=drop_one)
    with Container.open(path) as store:
        reader = store.task_reader("one")
        used = reader.sections_of(next(iter(reader)))
        free = next(ref for _, ref in store.directory("one").sections() if ref not in used)
        place = store.root.tasks["one"].first_offset + free.offset
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    found = [(finding.id, finding.where) for finding in verify(path, "decode")]
    assert [name for name, _ in found] == [ChecksumMismatchError.id, CorruptStreamError.id]
    assert "'layer.weight'" in found[1][1]


def test_unreadable_store_is_one_finding(tmp_path: Path) -> None:
    (tmp_path / "a.nps").write_bytes(b"something else")
    (finding,) = verify(tmp_path / "a.nps")
    assert (finding.id, finding.where) == (BadMagicError.id, "store")


def test_unknown_level_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown level 'all'"):
        verify(tmp_path / "a.nps", "all")
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "a.nps")


@pytest.mark.parametrize("slot", [0, 1])
def test_a_damaged_slot_is_one_finding(tmp_path: Path, slot: int) -> None:
    path = build(tmp_path / "a.nps")  # one commit, which fills both slots
    data = bytearray(path.read_bytes())
    data[SLOT_OFFSETS[slot]] ^= 1
    path.write_bytes(data)
    (finding,) = verify(path, "decode")
    assert finding.where == f"root slot {slot}"
