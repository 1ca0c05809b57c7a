"""JSON lines of texts and labels."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nps_store.errors import CalibrationError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


@dataclass(frozen=True)
class Row:
    """One example.

    Attributes:
        text: Its text.
        label: Its class, or None where the line has none.
        line: Where it stands in its file, from 1; no part of what it is.
        group: What it was cut from, say; rows of one group are never in different parts of a split.
            None is a group of its own.
    """

    text: str
    label: str | None = None
    line: int = field(default=0, compare=False)
    group: str | None = None


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Read `{"text": ..., "label": ..., "group": ...}` lines; only the text must be there.

    Raises:
        CalibrationError: The file is missing, empty, or a line cannot be used (names the line).
    """
    name = Path(path)
    try:
        # Not splitlines: a text may hold U+2028 and the like as they are.
        lines = name.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{name}: cannot be read as UTF-8 text ({error})") from error
    rows = [_row(name, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise CalibrationError(f'{name}: no examples; expected lines like {{"text": "..."}}')
    return rows


def class_indices(rows: Sequence[Row], labels: Sequence[str], *, where: str) -> list[int] | None:
    """Class of each row, or None where not every row has a label.

    Args:
        rows: The examples.
        labels: Label of each class of the head.
        where: What the rows are of, for the error.

    Raises:
        CalibrationError: A label is none of the head's (names the line and the label).
    """
    if any(row.label is None for row in rows):
        return None
    known = {label: index for index, label in enumerate(labels)}
    for row in rows:
        if row.label not in known:
            raise CalibrationError(
                f"{where}: line {row.line}: label {row.label!r} is none of the head's: expected "
                f"one of {', '.join(map(repr, labels))}"
            )
    return [known[str(row.label)] for row in rows]


def split_rows(rows: Sequence[Row], shares: Sequence[float], *, seed: int) -> list[list[Row]]:
    """Disjoint random parts of about the given shares, in a reproducible order.

    With too few rows for a part, the part is empty; no row and no group is ever in two parts.
    """
    groups: dict[object, list[Row]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(number if row.group is None else row.group, []).append(row)
    ends = np.round(np.cumsum(shares) / sum(shares) * len(rows))
    parts: list[list[Row]] = [[] for _ in shares]
    members, start = list(groups.values()), 0
    for index in np.random.default_rng(seed).permutation(len(members)):
        group = members[index]
        parts[np.searchsorted(ends, start + len(group) / 2)] += group
        start += len(group)
    return parts


def _row(path: Path, number: int, line: str) -> Row:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise CalibrationError(f"{path}: line {number} is not JSON ({error})") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("text"), str):
        raise CalibrationError(
            f'{path}: line {number}: expected an object with a string "text", got {line[:60]!r}'
        )
    return Row(fields["text"], _name(fields.get("label")), number, _name(fields.get("group")))


def _name(value: object) -> str | None:
    return None if value is None else str(value)
