"""Merges and transfers beside their peers, as tables of a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.markdown import head, row
from benchmarks.merging.results import lines
from benchmarks.methods import OURS
from benchmarks.transfer.table import means

if TYPE_CHECKING:
    from collections.abc import Mapping


def fusion(result: Mapping[str, Any]) -> str:
    """Methods down, best first, between the fine-tunes and the base; tasks across."""
    tasks = list(result["individual"]["tasks"])
    table = head(["method", "mean", *tasks])
    for name, line in lines(result):
        figures = (line["accuracy"], *(line["tasks"][task] for task in tasks))
        table.append(row([_name(name), *(f"{100 * figure:.1f}" for figure in figures)]))
    return "\n".join(table) + "\n"


def transfer(result: Mapping[str, Any]) -> str:
    """Methods down, best H-score first."""
    table = head(["method", "changed", "task kept", "base kept", "average", "H-score"])
    keys = ("changed", "task_kept", "base_kept", "average", "h_score")
    for mean in means(result["rows"]):
        share, *figures = (mean[key] for key in keys)
        cells = (f"{share:.0%}", *(f"{figure:.3f}" for figure in figures))
        table.append(row([_name(mean["method"]), *cells]))
    return "\n".join(table) + "\n"


def _name(method: str) -> str:
    return f"**{method}**" if method.startswith(OURS) else method
