"""The Debian task data: which rows belong to which task and split."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

DATA_FILE = Path(__file__).parent / "data" / "debian-tasks.jsonl.gz"
TASKS = (
    "section", "maintainer", "role", "implemented_in",
    "interface", "use", "works_with", "uitoolkit",
)  # fmt: skip
SPLITS = ("train", "calibration", "test")


@cache
def _all_rows() -> tuple[dict[str, str], ...]:
    with gzip.open(DATA_FILE, "rt", encoding="utf-8") as lines:
        return tuple(json.loads(line) for line in lines)


def rows(task: str, split: str) -> list[dict[str, str]]:
    """Rows `{"text", "label"}` of one task and split, in file order."""
    return [
        {"text": row["text"], "label": row["label"]}
        for row in _all_rows()
        if row["task"] == task and row["split"] == split
    ]


def write_jsonl(path: Path, task: str, split: str) -> Path:
    """Write one split in the form that `nps compress --calib` and `nps eval --data` read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(task, split))
    return path
