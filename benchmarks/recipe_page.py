"""Merges and transfers beside their peers, as tables of a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.transfer.table import means

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OURS = "NPS"


def fusion(result: Mapping[str, Any]) -> str:
    """Methods down, best first, between the fine-tunes and the base; tasks across."""
    tasks = list(result["individual"]["tasks"])
    rows = sorted(result["rows"], key=lambda row: -row["accuracy"])
    lines = [("individual models", result["individual"])]
    lines += [(_name(row["method"]), row) for row in rows]
    lines.append(("base", result["base"]))
    table = _head(["method", "mean", *tasks])
    for name, row in lines:
        figures = (row["accuracy"], *(row["tasks"][task] for task in tasks))
        table.append(_row([name, *(f"{100 * figure:.1f}" for figure in figures)]))
    return "\n".join(table) + "\n"


def transfer(result: Mapping[str, Any]) -> str:
    """Methods down, best H-score first."""
    table = _head(["method", "changed", "task kept", "base kept", "average", "H-score"])
    keys = ("changed", "task_kept", "base_kept", "average", "h_score")
    for mean in means(result["rows"]):
        share, *figures = (mean[key] for key in keys)
        cells = (f"{share:.0%}", *(f"{figure:.3f}" for figure in figures))
        table.append(_row([_name(mean["method"]), *cells]))
    return "\n".join(table) + "\n"


def _name(method: str) -> str:
    return f"**{method}**" if method.startswith(OURS) else method


def _head(names: Iterable[str]) -> list[str]:
    names = [*names]
    return [_row(names), "|" + "---|" * len(names)]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
