"""Stores with correct checksums and wrong contents: one test per rule."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from formats import Container, verify
from formats.canonical import dump, load
from formats.codecs import zstd
from formats.errors import (
    CompressedFrameError,
    CorruptStreamError,
    DuplicateNameError,
    FormatError,
    MalformedIndexError,
    SectionLayoutError,
    SizeLimitError,
    SizeMismatchError,
    UnknownEncodingError,
)
from formats.index import MAX_DIRECTORY_NBYTES, MAX_ROOT_NBYTES
from tests.formats.stores import build, forge, snapshot

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return build(tmp_path / "a.nps", "one", "two")


def test_an_unedited_forgery_is_a_valid_store(store: Path, tmp_path: Path) -> None:
    forged = forge(store, tmp_path / "b.nps")
    assert snapshot(forged) == snapshot(store)
    assert verify(forged, "decode") == []


def _swap(document: Any, **changes: Any) -> None:
    document.update(changes)


def _one(index: Any) -> Any:
    return index["tasks"]["one"]


ROOT_RULES = {
    "unknown key": (lambda i: i.update(extra=1), MalformedIndexError),
    "missing key": (lambda i: i.pop("recipes"), MalformedIndexError),
    "mistyped tasks": (lambda i: i.update(tasks=[]), MalformedIndexError),
    "mistyped offset": (lambda i: i["base"].__setitem__(0, 12288.0), MalformedIndexError),
    "boolean offset": (lambda i: i["base"].__setitem__(0, True), MalformedIndexError),
    "negative offset": (lambda i: i["base"].__setitem__(0, -64), MalformedIndexError),
    "huge offset": (lambda i: i["base"].__setitem__(0, 1 << 70), MalformedIndexError),
    "short reference": (lambda i: i["base"].pop(), MalformedIndexError),
    "bad checksum text": (lambda i: i["base"].__setitem__(2, "G" * 32), MalformedIndexError),
    "empty task name": (lambda i: i["tasks"].update({"": _one(i)}), MalformedIndexError),
    "other task's directory": (
        lambda i: i["tasks"].update(three=i["tasks"].pop("one")),
        MalformedIndexError,
    ),
    "misaligned": (lambda i: i["base"].__setitem__(0, i["base"][0] + 8), SectionLayoutError),
    "misaligned extent": (
        lambda i: _one(i).update(first_offset=_one(i)["first_offset"] + 8),
        SectionLayoutError,
    ),
    "extent behind its directory": (
        lambda i: _one(i).update(first_offset=1 << 30),
        SectionLayoutError,
    ),
    "extent too long": (
        lambda i: _one(i).update(first_offset=_one(i)["first_offset"] - 64),
        SectionLayoutError,
    ),
    "overlap": (lambda i: i["tasks"].update(three=_one(i)), SectionLayoutError),
    "before the data": (lambda i: i["base"].__setitem__(0, 4096), SectionLayoutError),
    "behind the commit": (lambda i: i["base"].__setitem__(0, 1 << 40), SectionLayoutError),
    "too long": (lambda i: i["base"].__setitem__(1, 1 << 40), SectionLayoutError),
    "base data of an external base": (
        lambda i: i.update(base_data=i["tasks"].pop("one")),
        SectionLayoutError,
    ),
}

BASE_RULES = {
    "unknown key": (lambda b: b.update(extra=1), MalformedIndexError),
    "unknown storage": (lambda b: b.update(storage="cloud"), MalformedIndexError),
    "embedded without data": (lambda b: b.update(storage="embedded"), SectionLayoutError),
    "duplicate tensor": (lambda b: b["tensors"].append(b["tensors"][0]), DuplicateNameError),
    "unknown dtype": (lambda b: b["tensors"][0].__setitem__(1, "F7"), UnknownEncodingError),
    "negative size": (lambda b: b["tensors"][0].__setitem__(2, [-1]), MalformedIndexError),
    "huge tensor": (lambda b: b["tensors"][0].__setitem__(2, [1 << 40]), SizeLimitError),
    "huge empty tensor": (lambda b: b["tensors"][0].__setitem__(2, [1 << 40, 0]), SizeLimitError),
    "high rank": (lambda b: b["tensors"][0].__setitem__(2, [1] * 17), SizeLimitError),
    "other rows": (lambda b: b["tensors"][1].__setitem__(2, [20, 60]), SizeMismatchError),
}


def _record(document: Any, tensor: int = 0) -> Any:
    return document["tensors"][tensor]["record"]


def _chunk(document: Any, stream: str, tensor: int = 0) -> Any:
    chunks = _record(document, tensor)["chunks"]
    return next(chunk for chunk in chunks if chunk[0] == stream)


def _move(document: Any, stream: str, by: int) -> None:
    document["streams"][stream][0][0] += by


DIRECTORY_RULES = {
    "unknown key": (lambda d: d.update(extra=1), MalformedIndexError),
    "unknown tensor key": (lambda d: d["tensors"][0].update(note=""), MalformedIndexError),
    "unknown record key": (lambda d: _record(d).update(note=""), MalformedIndexError),
    "unknown kind": (lambda d: _record(d).update(kind="magic"), UnknownEncodingError),
    "unknown codec": (lambda d: _chunk(d, "gaps").__setitem__(1, "lz4"), UnknownEncodingError),
    "unknown chunk stream": (
        lambda d: _chunk(d, "gaps").__setitem__(0, "gapz"),
        UnknownEncodingError,
    ),
    "unknown stream": (lambda d: d["streams"].update(noise=[]), UnknownEncodingError),
    "stream of another kind": (lambda d: _record(d)["chunks"].pop(), UnknownEncodingError),
    "chunk twice": (
        lambda d: _record(d)["chunks"].append(_record(d)["chunks"][-1]),
        UnknownEncodingError,
    ),
    "unknown value dtype": (lambda d: _record(d, 2).update(dtype="F7"), UnknownEncodingError),
    "unknown task dtype": (lambda d: d.update(dtype="F7"), UnknownEncodingError),
    "xor of another dtype": (lambda d: d["tensors"][1].update(dtype="F16"), UnknownEncodingError),
    "sparse without count": (lambda d: _record(d).pop("n_kept"), MalformedIndexError),
    "bits with count": (lambda d: _record(d, 1).update(n_kept=1), MalformedIndexError),
    "levels without range": (lambda d: _record(d).pop("levels"), MalformedIndexError),
    "bits with range": (lambda d: _record(d, 1).update(levels=[1, 2]), MalformedIndexError),
    "empty level range": (lambda d: _record(d, 3).update(levels=[3, 2]), MalformedIndexError),
    "level beyond int8": (lambda d: _record(d, 3).update(levels=[-3, 128]), MalformedIndexError),
    "magnitudes from 2": (lambda d: _record(d).update(levels=[2, 3]), MalformedIndexError),
    "new tensor without shape": (lambda d: d["tensors"][3].pop("shape"), MalformedIndexError),
    "new tensor without record": (lambda d: d["tensors"][3].pop("record"), SizeMismatchError),
    "base out of range": (lambda d: d["tensors"][0].update(base=5), MalformedIndexError),
    "duplicate tensor": (lambda d: d["tensors"][3].update(name="layer.bias"), DuplicateNameError),
    "duplicate of an unchanged one": (
        lambda d: d.update(absent=[]) or d["tensors"][3].update(name="scale"),
        DuplicateNameError,
    ),
    "absent out of range": (lambda d: d.update(absent=[5]), MalformedIndexError),
    "absent twice": (lambda d: d.update(absent=[3, 3]), MalformedIndexError),
    "absent and listed": (lambda d: d.update(absent=[1]), MalformedIndexError),
    "rows without extra": (lambda d: d["tensors"][2].pop("extra"), SizeMismatchError),
    "extra without rows": (lambda d: d["tensors"][2].pop("shape"), SizeMismatchError),
    "more kept than elements": (lambda d: _record(d).update(n_kept=1201), SizeMismatchError),
    "other count": (lambda d: _record(d).update(n_kept=50), SizeMismatchError),
    "wrong chunk length": (lambda d: _chunk(d, "signs").__setitem__(2, 3), SizeMismatchError),
    "wrong scales": (lambda d: _chunk(d, "scales").__setitem__(2, 8), SizeMismatchError),
    "frame as long as raw": (
        lambda d: _chunk(d, "bits", 1).__setitem__(1, "zstd"),
        SizeMismatchError,
    ),
    "uncovered bytes": (lambda d: _chunk(d, "gaps").__setitem__(2, 3), SizeMismatchError),
    "chunks beyond the section": (
        lambda d: _chunk(d, "gaps").__setitem__(2, 999),
        SizeMismatchError,
    ),
    "section without chunks": (lambda d: d["tensors"].pop(0), SizeMismatchError),
    "ranked without dither": (lambda d: d.pop("dither"), MalformedIndexError),
    "mistyped dither": (lambda d: d.update(dither=1), MalformedIndexError),
    "empty dither": (lambda d: d.update(dither=""), MalformedIndexError),
    "dither with NUL": (lambda d: d.update(dither="a\0b"), MalformedIndexError),
    "ranked new tensor": (
        lambda d: d["tensors"].__setitem__(
            4, {"name": "new", "dtype": "BF16", "shape": [48, 64], "record": _record(d, 4)}
        ),
        UnknownEncodingError,
    ),
    "ranked appended rows": (
        lambda d: d["tensors"][2].update(extra=_record(d, 4)),
        UnknownEncodingError,
    ),
    "more segments than buckets": (
        lambda d: _chunk(d, "segments", 4).__setitem__(2, 26),
        SizeMismatchError,
    ),
    "segments without ranks": (lambda d: _record(d, 4)["chunks"].pop(1), UnknownEncodingError),
    "ranks of another tensor": (
        lambda d: _chunk(d, "ranks", 4).__setitem__(2, 999),
        SizeMismatchError,
    ),
    "misaligned section": (lambda d: _move(d, "gaps", 8), SectionLayoutError),
    "hole": (lambda d: _move(d, "bits", 64), SectionLayoutError),
    "overlapping sections": (lambda d: _move(d, "gaps", -64), SectionLayoutError),
    "section too long": (
        lambda d: d["streams"]["blocks"][0].__setitem__(1, 4096),
        SectionLayoutError,
    ),
    "dropped section": (lambda d: d["streams"].pop("bits"), SectionLayoutError),
    "decoded size of a raw section": (lambda d: d["streams"]["gaps"][0].append(46), FormatError),
}


def _read(path: Path) -> None:
    snapshot(path)


@pytest.mark.parametrize("rule", ROOT_RULES)
def test_root_index(store: Path, tmp_path: Path, rule: str) -> None:
    edit, error = ROOT_RULES[rule]
    with pytest.raises(error, match=r"b\.nps"):
        _read(forge(store, tmp_path / "b.nps", root=edit))


@pytest.mark.parametrize("rule", BASE_RULES)
def test_base_record(store: Path, tmp_path: Path, rule: str) -> None:
    edit, error = BASE_RULES[rule]
    with pytest.raises(error, match=r"b\.nps"):
        _read(forge(store, tmp_path / "b.nps", base=edit))


@pytest.mark.parametrize("rule", DIRECTORY_RULES)
def test_task_directory(store: Path, tmp_path: Path, rule: str) -> None:
    edit, error = DIRECTORY_RULES[rule]
    forged = forge(store, tmp_path / "b.nps", directory=edit)
    with pytest.raises(error, match=r"b\.nps.*task 'one'"):
        _read(forged)
    assert {finding.where for finding in verify(forged, "decode")} >= {"task 'one'", "task 'two'"}


def test_index_bomb_is_refused_without_allocating(store: Path, tmp_path: Path) -> None:
    bomb = zstd.compress(b" " * (MAX_ROOT_NBYTES + 1))
    forged = forge(store, tmp_path / "b.nps", frame=bomb)
    tracemalloc.start()
    with pytest.raises(SizeLimitError, match="index too large"):
        _read(forged)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("text", [b"{", b"nan", b"[NaN]", b"\xff", b"[" * 100_000, b"9" * 5000])
def test_index_that_is_not_json(store: Path, tmp_path: Path, text: bytes) -> None:
    forged = forge(store, tmp_path / "b.nps", frame=zstd.compress(text))
    with pytest.raises(MalformedIndexError):
        _read(forged)


def test_index_with_a_key_twice(store: Path, tmp_path: Path) -> None:
    forged = forge(store, tmp_path / "b.nps", frame=zstd.compress(b'{"base":1,"base":2}'))
    with pytest.raises(DuplicateNameError, match="'base'"):
        _read(forged)


def test_index_with_bytes_behind_its_frame(store: Path, tmp_path: Path) -> None:
    forged = forge(store, tmp_path / "b.nps", frame=dump({}) + b"\0")
    with pytest.raises(CompressedFrameError):
        _read(forged)


def test_documents_round_trip_and_are_canonical() -> None:
    document = {"b": [1, 2.5, None, True], "a": {"ü": "\n"}}
    frame = dump(document)
    assert load(frame, max_nbytes=MAX_DIRECTORY_NBYTES) == document
    content = zstd.decompress(frame, zstd.declared_nbytes(frame))
    assert content.decode() == '{"a":{"ü":"\\n"},"b":[1,2.5,null,true]}'


def test_dictionary_chains_are_refused(store: Path, tmp_path: Path) -> None:
    def chain(index: Any) -> None:
        first, second = index["files"].values()
        first["dictionary"], second["dictionary"] = list(index["files"])[::-1]

    with pytest.raises(MalformedIndexError, match="compressed against a compressed"):
        _read(forge(store, tmp_path / "b.nps", root=chain))


def test_wrong_hash_of_a_file(store: Path, tmp_path: Path) -> None:
    def swap(index: Any) -> None:
        first, second = index["files"]
        index["files"] = {first: index["files"][second], second: index["files"][first]}

    with pytest.raises(FormatError, match=r"file"):
        _read(forge(store, tmp_path / "b.nps", root=swap))


def test_streams_that_decode_to_nonsense(store: Path, tmp_path: Path) -> None:
    def drop_one(document: Any) -> None:
        _record(document)["n_kept"] -= 1  # 29 entries take as many bytes as 30

    forged = forge(store, tmp_path / "b.nps", directory=drop_one)
    with pytest.raises(CorruptStreamError, match=r"tensor 'layer\.weight'"):
        _read(forged)
    findings = verify(forged, "decode")
    assert verify(forged, "checksums") == []
    assert {finding.id for finding in findings} == {CorruptStreamError.id}
    assert len(findings) == 2
    with Container.open(forged) as opened:
        assert opened.directory("one").name == "one"
