"""Where this project stands: at each of its points, how far every other method is.

python -m benchmarks.quality.table
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.methods import OURS
from benchmarks.quality.curve import Mean, bits_at, curves, frontier, measure_of

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULT = Path("benchmarks") / "results" / "quality.json"
DRAW = 1.02
"""Within 2 % of the bits two methods are called equal."""


def standing(theirs: list[Mean], ours: Mean) -> str:
    """One method against one of our points, in plain words."""
    bits = bits_at(theirs, ours.quality)
    if bits is None:
        best = max(theirs, key=lambda mean: mean.quality)
        return f"never: {best.quality:.3f} at {best.bits:.2f} b"
    ratio = bits / ours.bits
    at_first = min(theirs, key=lambda mean: mean.bits).bits == bits
    if ratio > DRAW:
        return f"{ratio:.1f}x the bits"
    if ratio >= 1 / DRAW:
        return "the same"
    return f"BETTER: {'at most ' if at_first else ''}{ratio:.2f}x the bits"


def rows(points: list[dict[str, Any]], group: str) -> Iterator[tuple[Mean, dict[str, str]]]:
    """Our points that no other of ours beats, each with every method's standing."""
    found = curves(points, group)
    for ours in frontier(found.pop(OURS, [])):
        yield ours, {name: standing(means, ours) for name, means in found.items()}


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """One table a group: methods down, our points across."""
    for group in dict.fromkeys(point["group"] for point in result["points"]):
        columns = list(rows(result["points"], group))
        if not columns:
            continue
        title = f"{group}: {measure_of(group).replace('_', ' ')}, against {OURS}"
        table = Table(title=title, title_justify="left")
        table.add_column("to reach")
        for ours, _ in columns:
            table.add_column(f"{ours.quality:.4f}\n{ours.bits:.4f} b\n{ours.nbytes / 1e3:.0f} kB")
        for name in columns[0][1]:
            table.add_row(name, *(standings[name] for _, standings in columns))
        yield table


def main(result: Annotated[Path, typer.Argument(help="Result file.")] = RESULT) -> None:
    """Print the standing at every one of our points."""
    console = Console(width=200)
    for table in tables(json.loads(result.read_text())):
        console.print(table)


if __name__ == "__main__":
    typer.run(main)
