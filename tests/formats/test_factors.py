"""Records that are factors: what is refused of writers and of files, and which stores have them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from formats import ContainerWriter, compact, verify
from formats.decode import decode_record
from formats.encode import encode_record
from formats.errors import (
    CompressedFrameError,
    CorruptStreamError,
    FormatError,
    InvalidRecordError,
    MalformedIndexError,
    SizeMismatchError,
    UnknownEncodingError,
)
from formats.records import Factors, check_covers
from tests.formats.stores import build_factors, factors_base, factors_record, forge, plain, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

OLD = Path(__file__).parent / "golden" / "v1.2" / "external.nps"
PRODUCT, TRANSPOSED, ROWS, COLUMNS = map(factors_record, factors_base())
SHAPE = (40, 50)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    tensors = snapshot(build_factors(tmp_path / "a.nps"))["tasks"]["one"][0]
    assert [t[4] for t in tensors] == [plain(factors_record(t)) for t in factors_base()]
    assert verify(tmp_path / "a.nps", "decode") == []


@pytest.mark.parametrize(
    ("record", "match"),
    [
        (replace(PRODUCT, form="diagonal"), "unknown form"),
        (replace(PRODUCT, rank=0), "products have a rank"),
        (replace(PRODUCT, rank=-3), "products have a rank"),
        (replace(PRODUCT, rank=2), "length of factors"),
        (replace(PRODUCT, rows=50), "factors of other rows"),
        (replace(PRODUCT, rows=41), "do not divide"),
        (replace(PRODUCT, scale=float("nan")), "no finite float32"),
        (replace(PRODUCT, scale=0.1), "no finite float32"),
        (replace(PRODUCT, dtype="F16"), "wrong type"),
        (replace(ROWS, scale=2.0), "only products have a scale"),
        (replace(ROWS, rank=1), "products have a rank"),
    ],
)
def test_unsound_records_are_refused(record: Factors, match: str) -> None:
    shape = SHAPE if record.numel == 2000 else (7,)
    with pytest.raises(InvalidRecordError, match=match):
        check_covers(record, shape)


@pytest.mark.parametrize("base", [None, 0])
def test_factors_need_a_base_tensor_and_no_more_rows(tmp_path: Path, base: int | None) -> None:
    arguments: dict[str, Any] = {"shape": SHAPE, "record": PRODUCT}
    if base is not None:
        arguments = {"shape": (80, 50), "record": None, "extra": PRODUCT}
    with ContainerWriter.create(tmp_path / "a.nps") as writer:
        writer.set_base(storage="external", tensors=factors_base())
        with writer.begin_task("one") as task, pytest.raises(UnknownEncodingError, match="factors"):
            task.add("product", dtype="BF16", base=base, **arguments)


def _record(document: Any, tensor: int = 0) -> Any:
    return document["tensors"][tensor]["record"]


def _chunk(document: Any, stream: str, nbytes: int) -> None:
    for chunk in _record(document)["chunks"]:
        if chunk[0] == stream:
            chunk[2] = nbytes


RULES: dict[str, tuple[Callable[[Any], Any], type[FormatError]]] = {
    "unknown form": (lambda d: _record(d).update(form="diagonal"), UnknownEncodingError),
    "no form": (lambda d: _record(d).pop("form"), MalformedIndexError),
    "mistyped form": (lambda d: _record(d).update(form=1), MalformedIndexError),
    "no rank": (lambda d: _record(d).pop("rank"), MalformedIndexError),
    "rank 0": (lambda d: _record(d).update(rank=0), MalformedIndexError),
    "rank of rows": (lambda d: _record(d, 2).update(rank=1), MalformedIndexError),
    "another rank": (lambda d: _record(d).update(rank=4), CompressedFrameError),
    "a huge rank": (lambda d: _record(d).update(rank=1 << 60), CompressedFrameError),
    "rows for columns": (lambda d: _record(d, 3).update(form="rows"), SizeMismatchError),
    "another dtype": (lambda d: _record(d).update(dtype="F16"), SizeMismatchError),
    "unknown dtype": (lambda d: _record(d).update(dtype="F3"), UnknownEncodingError),
    "a scale a row": (lambda d: _chunk(d, "scales", 160), SizeMismatchError),
    "no scale": (lambda d: _record(d)["chunks"].pop(0), UnknownEncodingError),
    "levels": (lambda d: _record(d).update(levels=[1, 1]), MalformedIndexError),
    "form of bits": (lambda d: _record(d, 2).update(kind="dense_bits"), MalformedIndexError),
    "of no base": (
        lambda d: d["tensors"][2].pop("base") and d["tensors"][2].update(
            name="x", dtype="BF16", shape=[7]
        ),
        UnknownEncodingError,
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_hostile_directories_are_refused(tmp_path: Path, rule: str) -> None:
    edit, error = RULES[rule]
    forged = forge(build_factors(tmp_path / "a.nps"), tmp_path / "b.nps", directory=edit)
    with pytest.raises(error, match=r"b\.nps.*task 'one'"):
        snapshot(forged)
    assert verify(forged, "decode")


def test_scales_that_are_no_numbers_are_refused() -> None:
    entry, payload = encode_record(PRODUCT, dtype="BF16")
    payload["scales"] = np.float32("inf").tobytes()
    with pytest.raises(CorruptStreamError, match="not finite"):
        decode_record(entry, payload, numel=2000, rows=40, dtype="BF16")


def test_every_damaged_byte_is_noticed(tmp_path: Path) -> None:
    path = build_factors(tmp_path / "a.nps")
    before, data = snapshot(path), path.read_bytes()
    for at in range(12288, len(data), 37):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        try:
            assert snapshot(path) == before  # a byte between sections, which nobody reads
        except FormatError:
            assert verify(path, "decode")


def test_a_store_of_version_1_2_refuses_factors_until_it_is_compacted(tmp_path: Path) -> None:
    path = tmp_path / "a.nps"
    shutil.copyfile(OLD, path)
    record = replace(PRODUCT, numel=1200, rank=3, factors=PRODUCT.factors[: 3 * 70])

    def add() -> None:
        with ContainerWriter.open(path) as writer:
            with writer.begin_task("four") as task:
                task.add("layer.weight", dtype="BF16", shape=(40, 30), base=1, record=record)
                task.finish()
            writer.commit()

    before = snapshot(path)
    with pytest.raises(InvalidRecordError, match=r"before 1\.3.*compact"):
        add()
    assert snapshot(path) == before
    compact(path)
    add()
    assert snapshot(path)["tasks"]["four"][0][0][4] == plain(record)
