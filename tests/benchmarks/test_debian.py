"""The task data: as many rows as stated, and nothing of the test split elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks import debian

if TYPE_CHECKING:
    from pathlib import Path


def test_as_many_rows_as_the_note_says() -> None:
    counts = [len(debian.rows(task, split)) for task in debian.TASKS for split in debian.SPLITS]
    assert sum(counts) == 41_510
    assert min(counts) > 0


@pytest.mark.parametrize("task", debian.TASKS)
def test_splits_are_disjoint(task: str) -> None:
    seen: set[str] = set()
    for split in debian.SPLITS:
        texts = {row["text"] for row in debian.rows(task, split)}
        assert seen.isdisjoint(texts)
        seen |= texts


def test_written_lines_are_the_rows(tmp_path: Path) -> None:
    path = debian.write_jsonl(tmp_path / "deep" / "use.jsonl", "use", "test")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == debian.rows("use", "test")
