"""Figures of every method over its tasks."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIGURES = ("accuracy", "recall", "mrr", "task_kept", "base_kept", "average", "h_score")


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Figures of every method over its tasks, best H-score first."""
    found = []
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name]
        figures = {key: statistics.fmean(r[key] for r in own) for key in ("changed", *FIGURES)}
        found.append({"method": name, "tasks": len(own), **figures})
    return sorted(found, key=lambda row: -row["h_score"])


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Methods down; means over the tasks across."""
    heads = ("method", "tasks", "changed", *(name.replace("_", " ") for name in FIGURES))
    shown = Table(*heads, title="what task and base keep, on test data")
    for mean in means(rows):
        cells = (f"{100 * mean[key]:.2f}" for key in ("changed", *FIGURES))
        shown.add_row(mean["method"], str(mean["tasks"]), *cells)
    return shown
