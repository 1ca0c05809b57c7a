from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nps_store.calibration import Row, read_rows, split_rows
from nps_store.errors import CalibrationError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(texts, st.none() | texts), min_size=1, max_size=6),
    ascii_only=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\n\n", "\n \n"]),
)
def test_reads_what_was_written(tmp_path_factory, rows, ascii_only, end):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = [json.dumps({"text": t, "label": b}, ensure_ascii=ascii_only) for t, b in rows]
    path.write_bytes((end.join(lines) + end).encode())
    assert read_rows(path) == [Row(*row) for row in rows]


@pytest.mark.parametrize(("label", "expected"), [(3, "3"), ("x", "x"), (None, None)])
def test_labels_are_text(tmp_path, label, expected):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "a", "label": label, "other": 1}))
    assert read_rows(path) == [Row("a", expected)]


GOOD = '{"text": "fine"}'


@pytest.mark.parametrize(
    "bad",
    ["{", "[1]", '"text"', "{}", '{"text": 3}', '{"text": null}', '{"label": "x"}', "plain words"],
)
@pytest.mark.parametrize("line", [1, 2, 4])
def test_a_line_that_cannot_be_used_is_named(tmp_path, bad, line):
    lines = [GOOD, "", GOOD, GOOD, GOOD]
    lines[line - 1] = bad
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(CalibrationError, match=f"rows.jsonl: line {line}\\b"):
        read_rows(path)


@pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"\xff\xfe bad"])
def test_a_file_without_examples_is_refused(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"rows.jsonl: (no examples|cannot be read)"):
        read_rows(path)


def test_groups_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "group": 3}\n{"text": "b", "label": 1, "group": "x"}\n')
    assert read_rows(path) == [Row("a", group="3"), Row("b", "1", group="x")]


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CalibrationError, match=r"none\.jsonl"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(CalibrationError):
        read_rows(tmp_path)


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(0, 50),
    shares=st.lists(st.floats(0.05, 1), min_size=1, max_size=4),
    seed=st.integers(0, 5),
)
def test_parts_are_disjoint_and_complete(n, shares, seed):
    rows = [Row(str(number)) for number in range(n)]
    parts = split_rows(rows, shares, seed=seed)
    assert parts == split_rows(rows, shares, seed=seed)
    assert len(parts) == len(shares)
    assert sorted(row.text for part in parts for row in part) == sorted(row.text for row in rows)
    for part, share in zip(parts, shares, strict=True):
        assert abs(len(part) - share / sum(shares) * n) <= 1


@settings(max_examples=50, deadline=None)
@given(groups=st.lists(st.sampled_from([None, *"abcdef"]), max_size=40), seed=st.integers(0, 5))
def test_no_group_is_in_two_parts(groups, seed):
    rows = [Row(str(number), group=group) for number, group in enumerate(groups)]
    parts = split_rows(rows, [0.7, 0.15, 0.15], seed=seed)
    assert sorted(row.text for part in parts for row in part) == sorted(row.text for row in rows)
    sides = [{row.group for row in part} - {None} for part in parts]
    assert sum(map(len, sides)) == len(set(groups) - {None})


def test_a_large_group_is_in_the_largest_part():
    rows = [Row(str(number), group="a" if number < 60 else None) for number in range(100)]
    for seed in range(20):
        first, *_ = split_rows(rows, [0.8, 0.1, 0.1], seed=seed)
        assert {row.group for row in first} >= {"a"}


def test_another_seed_is_another_split():
    rows = [Row(str(number)) for number in range(40)]
    assert split_rows(rows, [1, 1], seed=0) != split_rows(rows, [1, 1], seed=1)
