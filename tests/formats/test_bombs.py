"""Hostile files cost next to nothing: refused within 100 ms and 64 MB."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from formats.checksum import digest
from formats.codecs import zstd
from formats.errors import FormatError
from formats.layout import SLOT_OFFSETS, SUPERBLOCK
from tests.formats.stores import build, forge, snapshot
from tests.formats.test_hostile import BASE_RULES, DIRECTORY_RULES, ROOT_RULES

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_S = 0.1
MAX_NBYTES = 64 << 20
STATUS = Path("/proc/self/status")


def _memory(field: str) -> int:
    lines = STATUS.read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) << 10


def cost_of_refusing(path: Path) -> tuple[float, int]:
    """Seconds and bytes of resident memory at the worst, of reading all there is."""
    seconds = []
    peak = 0
    for _ in range(4):
        Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak starts from here
        before = _memory("VmRSS")
        start = time.perf_counter()
        with pytest.raises(FormatError):
            snapshot(path)
        seconds.append(time.perf_counter() - start)
        peak = max(peak, _memory("VmHWM") - before)
    return min(seconds), peak


def declaring(nbytes: int) -> bytes:
    """A frame of one empty block that declares a content of that many bytes."""
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", nbytes) + b"\x01\0\0"


def _slot(path: Path, **changes: int) -> None:
    data = bytearray(path.read_bytes())
    data[-64:] = bytes(64)  # else the store is recovered from its trailer
    for offset in SLOT_OFFSETS:
        names = ("generation", "offset", "nbytes")
        values = dict(zip(names, struct.unpack_from("<QQQ", data, offset), strict=True))
        committed = changes.get("committed", struct.unpack_from("<Q", data, offset + 40)[0])
        values |= {key: value for key, value in changes.items() if key in names}
        struct.pack_into("<QQQ", data, offset, *values.values())
        struct.pack_into("<Q", data, offset + 40, committed)
        fields = bytes(data[offset : offset + 48])
        data[offset + 48 : offset + 64] = digest(bytes(data[: SUPERBLOCK.size]), fields)
    path.write_bytes(data)


def _cycle(index: Any) -> None:
    for key, stored in index["files"].items():
        stored["dictionary"] = key


def _many_tasks(index: Any) -> None:
    one = index["tasks"]["one"]
    index["tasks"] |= {f"{i}": one for i in range(2000)}


def _inflate_files(index: Any) -> None:
    for stored in index["files"].values():
        section = stored["section"]
        stored["section"] = [*section[:3], 1 << 62]


def _inflate_streams(document: Any) -> None:
    for references in document["streams"].values():
        references[0] = [*references[0][:3], 1 << 40]


def _path_like(name: str) -> Callable[[Any], None]:
    def edit(document: Any) -> None:
        document["files"] = {name: next(iter(document["files"].values()))}

    return edit


BIG = 1 << 63
FRAMES = {
    "bomb of spaces": zstd.compress(b" " * (64 << 20)),
    "index of 22 million lists": zstd.compress(b"[" + b"[]," * (22 << 20) + b"[]]"),
    "index of a billion entries": declaring(4_000_000_000),
    "frame that declares 2**63 bytes": declaring(BIG),
    "frame that declares 2**64 - 1 bytes": declaring((1 << 64) - 1),
    "deep nesting": zstd.compress(b"[" * 250_000),
    "deep objects": zstd.compress(b'{"a":' * 50_000),
    "as many lists as are parsed": zstd.compress(b"[" + b"[]," * 87_000 + b"[]]"),
    "as many objects as are parsed": zstd.compress(b"[" + b'{"":1},' * 37_000 + b"{}]"),
    "a long number": zstd.compress(b"9" * 250_000),
    "a long string": zstd.compress(b'"' + b"a" * 250_000 + b'"'),
}
ROOTS = {
    "offset of 2**63": lambda i: i["base"].__setitem__(0, BIG),
    "length of 2**63": lambda i: i["base"].__setitem__(1, BIG),
    "length of 2**63 - 64": lambda i: i["base"].__setitem__(1, BIG - 64),
    "offset of 2**63 - 64": lambda i: i["base"].__setitem__(0, BIG - 64),
    "files that are their own dictionary": _cycle,
    "thousands of tasks in one place": _many_tasks,
    "files of 2**62 bytes": _inflate_files,
}
DIRECTORIES = {
    "streams of 2**40 bytes": _inflate_streams,
    **{
        f"file name {name!r}": _path_like(name)
        for name in ("/etc/passwd", "../x", "a/../../x", "a//b", ".", "C:x", "a\\b", "a/")
    },
}
SLOTS = {
    "root of 2**63 bytes": {"nbytes": BIG, "committed": 64},
    "root at 2**63": {"offset": BIG},
    "committed length of 2**63": {"committed": BIG},
    "empty root": {"nbytes": 0},
}


def _huge_base(document: Any) -> None:
    document["tensors"][4][2] = [1 << 18, 1 << 17]


def _keep_all(document: Any) -> None:
    record = document["tensors"][4]["record"]
    record["n_kept"] = 1 << 35
    for chunk in record["chunks"]:
        if chunk[0] == "signs":
            chunk[1] = "zstd"


def catalogue(folder: Path) -> dict[str, Path]:
    """All hostile files, made."""
    store = build(folder / "sound.nps", "one", "two")
    made = {}

    def make(name: str, **edits: Any) -> None:
        made[name] = forge(store, folder / f"{len(made)}.nps", **edits)

    for prefix, part, rules in (
        ("root", "root", ROOT_RULES),
        ("base", "base", BASE_RULES),
        ("directory", "directory", DIRECTORY_RULES),
    ):
        for name, (edit, _) in rules.items():
            make(f"{prefix}: {name}", **{part: edit})
    for name, frame in FRAMES.items():
        make(name, frame=frame)
    for name, edit in ROOTS.items():
        make(name, root=edit)
    for name, edit in DIRECTORIES.items():
        make(name, directory=edit)
    make("ranks of 2**35 kept entries", base=_huge_base, directory=_keep_all)
    for name, changes in SLOTS.items():
        make(name)
        _slot(made[name], **changes)
    return made


@pytest.mark.skipif(not STATUS.exists(), reason="measures through /proc")
def test_refused_within_100_ms_and_64_mb(tmp_path: Path) -> None:
    costs = {name: cost_of_refusing(path) for name, path in catalogue(tmp_path).items()}
    slowest = max(costs, key=lambda name: costs[name][0])
    largest = max(costs, key=lambda name: costs[name][1])
    print(  # noqa: T201
        f"{len(costs)} hostile files: slowest {costs[slowest][0] * 1e3:.1f} ms ({slowest}), "
        f"largest {costs[largest][1] / 1e6:.1f} MB ({largest})"
    )
    assert len(costs) > 90
    assert costs[slowest][0] < MAX_S, slowest
    assert costs[largest][1] < MAX_NBYTES, largest


def test_zeros_of_an_attached_file_are_stored_so_that_they_can_be_read(tmp_path: Path) -> None:
    from formats import Container, ContainerWriter

    zeros = bytes(20 << 20)
    path = build(tmp_path / "a.nps")
    with ContainerWriter.open(path) as writer:
        ref = writer.add_file(zeros)
        writer.commit()
    with Container.open(path) as store:
        assert store.root.files[ref.hash].section.raw_nbytes is None
        assert store.file(ref) == zeros
