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
TEN = 10
AHEAD = "AHEAD"


def standing(theirs: list[Mean], ours: Mean) -> str:
    """The bits that a method takes for the quality of one of our points, relative to ours."""
    bits = bits_at(theirs, ours.quality)
    if bits is None:
        return f"never ({max(mean.quality for mean in theirs):.3f})"
    ratio = bits / ours.bits
    if ratio > DRAW:
        return f"{ratio:.1f}x" if ratio < TEN else f"{ratio:.0f}x"
    if ratio >= 1 / DRAW:
        return "same"
    is_first = min(mean.bits for mean in theirs) == bits
    return f"{'<' if is_first else ''}{ratio:.2f}x {AHEAD}"


def rows(points: list[dict[str, Any]], group: str) -> Iterator[tuple[Mean, dict[str, str]]]:
    """Our points that no other of ours beats, each with every method's standing."""
    found = curves(points, group)
    for ours in frontier(found.pop(OURS, [])):
        yield ours, {name: standing(means, ours) for name, means in found.items()}


def tables(result: dict[str, Any]) -> Iterator[Table | str]:
    """A group's table, methods down and our points across, then what it says in words."""
    for group in dict.fromkeys(point["group"] for point in result["points"]):
        columns = list(rows(result["points"], group))
        if not columns:
            continue
        table = Table(
            title=f"{group}: bits that others take for the {measure_of(group).replace('_', ' ')} "
            f"of {OURS}, relative to its own; never: their best is less",
            title_justify="left",
        )
        table.add_column(f"{OURS} has\nat bits\nand kB")
        for ours, _ in columns:
            table.add_column(f"{ours.quality:.4f}\n{ours.bits:.4f}\n{ours.nbytes / 1e3:.0f}")
        for name in columns[0][1]:
            table.add_row(name, *(standings[name] for _, standings in columns))
        yield table
        yield verdict(group, columns)


def verdict(group: str, columns: list[tuple[Mean, dict[str, str]]]) -> str:
    """Where others are left of us, or that none is anywhere."""
    ahead = [
        f"at {ours.quality:.4f} ({ours.bits:.4f} bits) {name} takes "
        f"{words.removesuffix(AHEAD).strip()} the bits"
        for ours, standings in columns
        for name, words in standings.items()
        if words.endswith(AHEAD)
    ]
    if not ahead:
        return f"{group}: {OURS} is at or left of every method at each of its points."
    return f"{group}: {OURS} is behind: " + "; ".join(ahead) + "."


def main(result: Annotated[Path, typer.Argument(help="Result file.")] = RESULT) -> None:
    """Print the standing at every one of our points."""
    console = Console(width=200)
    for table in tables(json.loads(result.read_text())):
        console.print(table)


if __name__ == "__main__":
    typer.run(main)
