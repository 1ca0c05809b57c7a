"""Outliers of packed levels: what they save, who reads them, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from formats import ContainerWriter, compact, verify
from formats.codecs import outliers
from formats.decode import decode_record
from formats.encode import encode_record
from formats.errors import (
    CorruptStreamError,
    FormatError,
    MalformedIndexError,
    SizeMismatchError,
    UnknownEncodingError,
)
from formats.records import DenseLevels, Record
from tests.formats.stores import build_outlying, forge, plain, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

OLD = Path(__file__).parent / "golden" / "v1.1" / "external.nps"
ONE = np.ones(1, np.float32)


def heavy_tailed(numel: int = 300_000, *, step: float = 1.5) -> DenseLevels:
    draws = np.random.default_rng(0).standard_t(4, numel)
    return DenseLevels(numel, np.rint(draws / step).clip(-127, 127).astype(np.int8), ONE)


def entropy_nbytes(levels: np.ndarray) -> float:
    counts = np.unique(levels, return_counts=True)[1]
    return float((counts * np.log2(counts.sum() / counts)).sum()) / 8


@pytest.mark.parametrize(("step", "over"), [(2.5, 1.07), (1.5, 1.05), (1.0, 1.04)])
def test_heavy_tails_take_little_more_than_their_entropy(step: float, over: float) -> None:
    record = heavy_tailed(step=step)
    entry, payload = encode_record(record, dtype="F32")
    assert entry.n_outliers
    assert entry.nbytes < over * entropy_nbytes(record.levels)
    decoded = decode_record(entry, payload, numel=record.numel, dtype="F32")
    assert plain(decoded) == plain(record)
    plainly, _ = encode_record(record, dtype="F32", with_outliers=False)
    assert plainly.n_outliers is None
    assert entry.nbytes < plainly.nbytes


def test_light_tails_have_no_outliers() -> None:
    levels = np.random.default_rng(0).integers(-2, 3, 50_000).astype(np.int8)
    entry, _ = encode_record(DenseLevels(levels.size, levels, ONE), dtype="F32")
    assert (entry.n_outliers, entry.level_range) == (None, (-2, 2))


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.int8, st.integers(1, 60)), st.integers(-128, 126), st.integers(1, 255))
def test_what_is_split_is_restored(levels: np.ndarray, low: int, width: int) -> None:
    high = min(low + width, 127)
    cut, positions, excess = outliers.split(levels, low, high)
    assert low <= cut.min() <= cut.max() <= high
    restored = cut.astype(np.int16)
    outliers.restore_(restored, positions, excess, low, high)
    assert np.array_equal(restored, levels)


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.int8, st.integers(1, 60)))
def test_narrower_ranges_lie_within_the_whole(levels: np.ndarray) -> None:
    whole, *narrower = outliers.ranges(levels)
    assert whole == (levels.min(), levels.max())
    for low, high in narrower:
        assert whole[0] <= low < high <= whole[1]
        assert high - low < whole[1] - whole[0]


@pytest.mark.parametrize(
    ("level", "excess", "match"),
    [(0, 3, "not exceed"), (1, 0, "not exceed"), (1, 127, "beyond int8"), (-1, 128, "beyond int8")],
)
def test_impossible_outliers_are_refused(level: int, excess: int, match: str) -> None:
    levels = np.array([0, level], np.int16)
    with pytest.raises(CorruptStreamError, match=match):
        outliers.restore_(levels, np.array([1]), bytes([excess]), -1, 1)


def test_a_range_of_one_level_has_no_outliers() -> None:
    with pytest.raises(CorruptStreamError, match="one level"):
        outliers.restore_(np.zeros(3, np.int16), np.array([1]), b"\1", 0, 0)


def _record(document: Any, tensor: int = 0) -> Any:
    return document["tensors"][tensor]["record"]


def _drop(document: Any, stream: str) -> None:
    record = _record(document)
    record["chunks"] = [chunk for chunk in record["chunks"] if chunk[0] != stream]


RULES: dict[str, tuple[Callable[[Any], Any], type[FormatError]]] = {
    "none": (lambda d: _record(d).update(n_outliers=0), MalformedIndexError),
    "mistyped": (lambda d: _record(d).update(n_outliers="8"), MalformedIndexError),
    "fewer": (lambda d: _record(d).update(n_outliers=7), SizeMismatchError),
    "more than elements": (lambda d: _record(d).update(n_outliers=2001), SizeMismatchError),
    "not counted": (lambda d: _record(d).pop("n_outliers"), UnknownEncodingError),
    "without excess": (lambda d: _drop(d, "outliers"), UnknownEncodingError),
    "without positions": (lambda d: _drop(d, "gaps"), UnknownEncodingError),
    "of bits": (
        lambda d: _record(d).update(kind="dense_bits") or _record(d).pop("levels"),
        MalformedIndexError,
    ),
    "of another range": (lambda d: _record(d).update(levels=[-3, 1]), CorruptStreamError),
    "beyond int8": (lambda d: _record(d).update(levels=[0, 4]), CorruptStreamError),
}


@pytest.mark.parametrize("rule", RULES)
def test_hostile_directories_are_refused(tmp_path: Path, rule: str) -> None:
    edit, error = RULES[rule]
    store = build_outlying(tmp_path / "a.nps")
    forged = forge(store, tmp_path / "b.nps", directory=edit)
    with pytest.raises(error, match=r"b\.nps.*task 'one'"):
        snapshot(forged)
    assert verify(forged, "decode")


def test_a_store_of_version_1_1_stays_one_until_it_is_compacted(tmp_path: Path) -> None:
    path = tmp_path / "a.nps"
    shutil.copyfile(OLD, path)
    levels = np.random.default_rng(0).integers(-2, 3, 1200).astype(np.int8)
    levels[:3] = -90, 50, 90
    record = DenseLevels(1200, levels, ONE)
    assert _add(path, "four", record) is None
    compact(path)
    assert _add(path, "five", record)
    for tensors in (snapshot(path)["tasks"][name][0] for name in ("four", "five")):
        assert tensors[0][4] == plain(record)
    assert verify(path, "decode") == []


def _add(path: Path, name: str, record: Record) -> int | None:
    """Adds a task of one tensor; how many outliers it is stored with."""
    with ContainerWriter.open(path) as writer:
        with writer.begin_task(name) as task:
            entry = task.add("layer.weight", dtype="BF16", shape=(40, 30), base=1, record=record)
            task.finish()
        writer.commit()
    assert entry.record is not None
    return entry.record.n_outliers
