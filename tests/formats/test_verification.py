from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from formats import Container, verify
from formats.errors import BadMagicError, ChecksumMismatchError
from tests.formats.stores import build

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


def test_unreadable_store_is_one_finding(tmp_path: Path) -> None:
    (tmp_path / "a.nps").write_bytes(b"something else")
    (finding,) = verify(tmp_path / "a.nps")
    assert (finding.id, finding.where) == (BadMagicError.id, "store")


def test_unknown_level_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown level 'all'"):
        verify(tmp_path / "a.nps", "all")
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "a.nps")
