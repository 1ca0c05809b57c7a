"""Measure every method on every fine-tune, draw the curves, print the standing.

python -m benchmarks.zoo --out zoo --device cuda
python -m benchmarks.lm_zoo --out zoo_lm --device cuda
python -m benchmarks.quality --device cuda --jobs 14
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import minilm
from benchmarks.choice import chosen_methods
from benchmarks.methods import METHODS
from benchmarks.quality.plot import draw
from benchmarks.quality.run import Run
from benchmarks.quality.table import RESULT, tables
from benchmarks.quality.tasks import FineTune, find


def main(
    zoo: Annotated[Path, typer.Option(help="Folder of the classifiers.")] = Path("zoo"),
    lm_zoo: Annotated[Path, typer.Option(help="Folder of the language models.")] = Path("zoo_lm"),
    base: Annotated[Path | None, typer.Option(help="Base of the classifiers.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks or groups.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only these methods.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    jobs: Annotated[int, typer.Option(help="Tasks at a time, one process each.")] = 1,
    seconds: Annotated[float | None, typer.Option(help="Begin no point after that.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure known points anew.")] = False,
    out: Annotated[Path, typer.Option(help="Result file; its points are kept.")] = RESULT,
    journal: Annotated[Path, typer.Option(help="Folder of points as they come.")] = Path(
        ".cache/quality"
    ),
) -> None:
    """Rate against quality of all methods on the same models."""
    everything = find(zoo, lm_zoo, base or minilm.base_dir())
    tasks = _chosen(everything, task)
    methods = chosen_methods(method, METHODS)
    result = Run(
        tasks, everything, methods, device, out, journal, jobs, seconds=seconds, again=again
    )()
    console = Console(width=200)
    for table in tables(result):
        console.print(table)
    for reason in _reasons(result):
        console.print(reason)
    try:
        draw(result, out.with_suffix(".svg"))
    except ModuleNotFoundError as error:
        console.print(f"no curves are drawn: {error.name} is missing (extra `bench`)")


def _chosen(tasks: list[FineTune], wanted: list[str] | None) -> list[FineTune]:
    chosen = [t for t in tasks if not wanted or t.name in wanted or t.group in wanted]
    if not chosen:
        known = ", ".join(dict.fromkeys(name for t in tasks for name in (t.group, t.name)))
        raise typer.BadParameter(f"no such fine-tunes; there are: {known or 'none, train them'}")
    return chosen


def _reasons(result: dict[str, Any]) -> list[str]:
    told = {(p["task"], p["method"], p["reason"]) for p in result["skipped"]}
    return [f"left out: {task}: {method}: {reason}" for task, method, reason in sorted(told)]


if __name__ == "__main__":
    typer.run(main)
