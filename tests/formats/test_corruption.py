"""Every byte of a small store, flipped: a specific error or the same content, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from formats import Container, verify
from formats.errors import (
    BadMagicError,
    ChecksumMismatchError,
    FormatError,
    NpsError,
    UnsupportedFeatureError,
    UnsupportedVersionError,
)
from formats.layout import (
    DATA_OFFSET,
    SLOT,
    SLOT_OFFSETS,
    SUPERBLOCK,
    TRAILER,
    pack_superblock,
)
from tests.formats.stores import build, snapshot

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return build(tmp_path / "a.nps", "one", "two")


def _outcome(path: Path, data: bytes, at: int) -> Any:
    """Content of the store with one bit at ``at`` flipped, or the class of the error."""
    damaged = bytearray(data)
    damaged[at] ^= 1 << at % 8
    path.write_bytes(damaged)
    try:
        return snapshot(path)
    except NpsError as error:
        return type(error) if str(path) in str(error) else str(error)


def test_superblock(store: Path) -> None:
    data = store.read_bytes()
    for at in range(SUPERBLOCK.size):
        error = _outcome(store, data, at)
        if at < 8:
            assert error is BadMagicError
        elif at < 10:
            assert error is UnsupportedVersionError
        else:
            assert error is ChecksumMismatchError


def test_slots(store: Path) -> None:
    data, content = store.read_bytes(), snapshot(store)
    for offset in SLOT_OFFSETS:
        for at in range(offset, offset + SLOT.size):
            assert _outcome(store, data, at) == content
            assert [finding.id for finding in verify(store)] == ["format.root_slot_damaged"]


def _live(path: Path) -> set[int]:
    """Offsets of all bytes that the last generation refers to."""
    with Container.open(path) as store:
        pointer = store.selection.pointer
        live = set(range(pointer.offset, pointer.offset + pointer.nbytes))
        live.update(range(store.root.base.offset, store.root.base.end))
        for stored in store.root.files.values():
            live.update(range(stored.section.offset, stored.section.end))
        for name, entry in store.root.tasks.items():
            live.update(range(entry.directory.offset, entry.directory.end))
            for _, ref in store.directory(name).sections():
                start = entry.first_offset + ref.offset
                live.update(range(start, start + ref.nbytes))
    return live


def test_data(tmp_path: Path) -> None:
    store = build(tmp_path / "a.nps", "one")
    data, content, live = store.read_bytes(), snapshot(store), _live(store)
    assert len(live) > 1000
    for at in range(DATA_OFFSET, len(data)):
        expected = ChecksumMismatchError if at in live else content
        assert _outcome(store, data, at) == expected


def test_verify_finds_every_flip_in_live_bytes_and_the_trailer(store: Path) -> None:
    data = store.read_bytes()
    live = sorted(_live(store))[::7]
    for at in [*live, len(data) - 1, len(data) - TRAILER.size]:
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        store.write_bytes(damaged)
        assert verify(store, "checksums")


def test_padding_has_no_meaning(store: Path) -> None:
    data, content = store.read_bytes(), snapshot(store)
    for at in (SUPERBLOCK.size, 4095, 4096 + SLOT.size, 8191, 8192 + SLOT.size, 12_287):
        assert _outcome(store, data, at) == content


def test_unknown_feature_bit_names_the_bit(store: Path) -> None:
    data = store.read_bytes()
    store.write_bytes(pack_superblock(features=1 << 5) + data[SUPERBLOCK.size :])
    with pytest.raises(UnsupportedFeatureError, match=r"feature bits \[5\]"):
        Container.open(store)


@pytest.mark.parametrize("length", [*range(0, 64, 7), 4096, 8192, 12_288, 12_289, 13_000])
def test_truncation_is_always_an_error(store: Path, length: int) -> None:
    store.write_bytes(store.read_bytes()[:length])
    with pytest.raises(FormatError):
        Container.open(store)
