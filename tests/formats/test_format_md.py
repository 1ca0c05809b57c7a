"""The specification and the code say the same."""

from __future__ import annotations

import importlib
import re
import struct
from functools import reduce
from pathlib import Path

import pytest

import formats
from formats import encoding, errors, layout
from formats.codecs import packing, rice
from formats.directory import TaskDirectory
from formats.dtypes import ITEMSIZES
from formats.errors import NpsError
from formats.index import BaseRecord, RootIndex, SectionRef

TEXT = (Path(formats.__file__).parent / "FORMAT.md").read_text("utf-8")


def table(after: str, head: str) -> list[list[str]]:
    """Rows of the first table with this first column behind a piece of text."""
    lines = TEXT[TEXT.index(after) :].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(f"| {head} |"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("row", table("## 7. Limits", "Limit"), ids=lambda row: row[0])
def test_limits(row: list[str]) -> None:
    module, _, names = code(row[2])[0].partition(".")
    if module == "codecs":
        name, _, names = names.partition(".")
        module = f"codecs.{name}"
    value = reduce(getattr, names.split("."), importlib.import_module(f"formats.{module}"))
    assert int(row[1]) == value


@pytest.mark.parametrize(
    ("heading", "layout_struct"),
    [
        ("### 2.1 Superblock", layout.SUPERBLOCK),
        ("### 2.2 Root slot", layout.SLOT),
        ("### 2.3 Trailer", layout.TRAILER),
    ],
)
def test_fields_of_fixed_structures(heading: str, layout_struct: struct.Struct) -> None:
    fields = re.findall(r"\d*[a-zA-Z]", layout_struct.format.lstrip("<"))
    sizes = [struct.calcsize(f"<{field}") for field in fields]
    rows = table(heading, "Offset")
    assert [int(row[1]) for row in rows] == sizes
    assert [int(row[0]) for row in rows] == [sum(sizes[:i]) for i in range(len(sizes))]


def test_rice_header() -> None:
    rows = table("### 5.2 Index", "Offset")
    assert rice.HEADER.fields is not None
    assert [(int(r[0]), int(r[1]), r[2]) for r in rows] == [
        (offset, dtype.itemsize, name) for name, (dtype, offset) in rice.HEADER.fields.items()
    ]


def test_magics() -> None:
    (hexadecimal,) = code(table("### 2.1 Superblock", "Offset")[0][3])
    assert bytes.fromhex(hexadecimal) == layout.MAGIC
    assert code(table("### 2.3 Trailer", "Offset")[0][3]) == [layout.TRAILER_MAGIC.decode()]


def test_map_of_the_file() -> None:
    offsets = [int(number) for number in re.findall(r"^(\d+) +\w", TEXT, re.MULTILINE)]
    assert offsets == [0, *layout.SLOT_OFFSETS, layout.DATA_OFFSET]


def test_dtypes() -> None:
    rows = table("## 7. Limits", "dtype")
    assert {name: int(row[1]) for row in rows for name in code(row[0])} == ITEMSIZES


def test_streams_and_codecs() -> None:
    rows = table("### 5.1 Streams", "Stream")
    documented = {code(row[0])[0]: tuple(row[1].split(", ")) for row in rows}
    assert documented == encoding.CHUNK_CODECS
    assert tuple(documented) == encoding.STREAMS


def test_kinds() -> None:
    assert {code(row[0])[0] for row in table("## 5. Records", "Kind")} == set(encoding.KINDS)


def test_digits_per_byte() -> None:
    (digits,) = table("### 5.3 Packed levels", "n")
    heads = re.search(r"^\| n \|(.*)\|$", TEXT, re.MULTILINE)
    assert heads is not None
    for head, digit in zip(heads[1].split("|"), digits[1:], strict=True):
        low, _, high = head.strip().partition(" to ")
        for n_levels in range(int(low), int(high or low) + 1):
            assert packing.digits_per_byte(n_levels) == int(digit)


def test_errors() -> None:
    classes = [cls for cls in vars(errors).values() if isinstance(cls, type)]
    expected = {
        (cls.exit_code, cls.id) for cls in classes if issubclass(cls, NpsError) and cls != NpsError
    }
    rows = table("## 8. Errors", "Exit code")
    assert {(int(row[0]), code(row[1])[0]) for row in rows} == expected


def test_keys_of_documents() -> None:
    reference = SectionRef(0, 0, "")
    for heading, document in (
        ("### 4.1", RootIndex(reference).to_json()),
        ("### 4.2", BaseRecord("external", ()).to_json()),
        ("### 4.4", TaskDirectory("x").to_json(())),
    ):
        assert isinstance(document, dict)
        assert [code(row[0])[0] for row in table(heading, "Key")] == list(document)
