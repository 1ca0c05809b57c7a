"""Tensors read by columns are those read one by one, and so are the errors."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import tensor_table
from formats.base import BaseTensor
from formats.errors import FormatError
from formats.tensor_table import TensorTable

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = [
    BaseTensor("a", "F32", (8, 10), "0" * 32),
    BaseTensor("b", "BF16", (), "1" * 32),
    BaseTensor("c" * 4000, "F16", (0, 7), "2" * 32),
    BaseTensor("d", "F64", (70_000,), "3" * 32),
]


def signs(base: Any, n_kept: Any, *, n_scales: int = 1, ranks: int = 9) -> dict[str, Any]:
    chunks = [
        ["segments", "raw", 3],
        ["ranks", "raw", ranks],
        ["signs", "raw", -(-n_kept // 8)],
        ["scales", "raw", 4 * n_scales],
    ]
    record = {"kind": "sparse_levels", "chunks": chunks, "levels": [1, 1], "n_kept": n_kept}
    return {"base": base, "record": record}


def dense(base: int, n_rows: int) -> dict[str, Any]:
    chunks = [["levels", "raw", 16], ["scales", "raw", 4 * n_rows]]
    record = {"kind": "dense_levels", "chunks": chunks, "levels": [-1, 1]}
    return {"base": base, "record": record}


SOUND = [
    signs(0, 17, n_scales=8),
    dense(0, 1),
    signs(1, 1),
    {"base": 2},
    signs(3, 300),
    signs(0, 0, ranks=0),
]
VALUES = [
    *(0, 1, -1, 2, 3, 4, 8, 81, 1 << 63, 1 << 70, True, False, 1.0, 0.5, None),
    *("", "raw", "zstd", "ranks", "a", "\ud800"),
    *([], [1], [1, 1], [1, 2], [1, 1, 1], {}, {"base": 0}),
]
KEYS = ["base", "record", "name", "shape", "dtype", "extra", "kind", "chunks", "levels", "n_kept"]


def outcome(parse: Callable[[], TensorTable]) -> Any:
    try:
        table = parse()
    except FormatError as error:
        return type(error), str(error)
    return [*table], table.names, table.bases, table.has_ranked, len(table)


def both(items: Any, prefix: str) -> tuple[Any, Any]:
    """By columns where it can be, and one by one."""
    fast = outcome(lambda: TensorTable.from_json(items, BASE, prefix, "task"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_table, "_numbers", lambda _item: [][0])
        return fast, outcome(lambda: TensorTable.from_json(items, BASE, prefix, "task"))


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a document with every key of it."""
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    found = [(value, key) for key in keys]
    for key in keys:
        if isinstance(value[key], dict | list):
            found += places(value[key])
    return found


@settings(max_examples=500, deadline=None)
@given(st.data(), st.sampled_from(["", "model.", "x" * 4096, "\0", "\ud800"]))
def test_equal_whatever_is_changed(data: st.DataObject, prefix: str) -> None:
    items: Any = copy.deepcopy(SOUND)
    for _ in range(data.draw(st.integers(0, 2))):
        container, key = data.draw(st.sampled_from(places(items)))
        how = data.draw(st.sampled_from(["replace", "delete", "add", "near"]))
        if how == "delete":
            del container[key]
        elif how == "near" and type(container[key]) is int:
            container[key] += data.draw(st.sampled_from([-1, 1]))
        elif how == "add" and isinstance(container, dict):
            container[data.draw(st.sampled_from(KEYS))] = data.draw(st.sampled_from(VALUES))
        elif how == "add":
            container.append(copy.deepcopy(container[key]))
        else:
            container[key] = copy.deepcopy(data.draw(st.sampled_from(VALUES)))
    fast, reference = both(items, prefix)
    assert fast == reference


def test_what_is_alike_becomes_rows() -> None:
    table = TensorTable.from_json(SOUND, BASE, "m.", "task")
    rows = table.signs
    assert rows.numbers.tolist() == [0, 2, 4, 5]
    assert rows.bases.tolist() == [0, 1, 3, 0]
    assert rows.numels.tolist() == [80, 1, 70_000, 80]
    assert rows.n_kept.tolist() == [17, 1, 300, 0]
    assert {name: each.tolist() for name, each in rows.nbytes_by_stream()} == {
        "segments": [3] * 4, "ranks": [9, 9, 9, 0], "signs": [3, 1, 38, 0], "scales": [32, 4, 4, 4],
    }  # fmt: skip
    assert sorted(table.others) == [1, 3]
    assert [entry.name for entry in table] == table.names
    assert table[4].base == 3
    assert table[1:3] == (table[1], table[2])
    with pytest.raises(IndexError):
        table[6]
