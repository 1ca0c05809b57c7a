"""Merge the classifiers into one encoder by every method; test accuracy of each.

    python -m benchmarks.zoo --out zoo --device cuda
    python -m benchmarks.fusion --zoo zoo --device cuda

Methods see calibration data only. The heads are the fine-tunes' own. What the result file has is
not measured again.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import minilm
from benchmarks.choice import chosen_methods
from benchmarks.machine import choose_gpu
from benchmarks.merging import METHODS
from benchmarks.merging.load import Loaded, load
from benchmarks.merging.problem import Objective  # noqa: TC001 (typer looks it up)
from benchmarks.merging.results import ResultFile, lines
from benchmarks.quality.tasks import classifiers
from benchmarks.zoo import quiet

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.merging.method import MergeMethod

RESULT = Path("benchmarks") / "results" / "fusion.json"
SCHEMA = "nps.bench-fusion/1"


def references(loaded: Loaded) -> dict[str, Any]:
    """Test accuracy of the individual models and of the base's body, by task."""
    problem = loaded.problem
    nothing = problem.base * 0
    individual = {}
    for task, delta in zip(problem.tasks, problem.deltas, strict=True):
        weights = problem.base + delta
        score = problem.encoder.scores(weights, {task: loaded.test[task]})[task]
        individual[task] = score.accuracy
    return {"individual": _summary(individual), "base": _summary(_accuracies(loaded, nothing))}


def measure(loaded: Loaded, method: MergeMethod) -> dict[str, Any]:
    """Merge, then look at the test data."""
    start = time.perf_counter()
    merged = method.merge(loaded.problem)
    seconds = time.perf_counter() - start
    problem = loaded.problem
    calibration = problem.encoder.scores(problem.base + merged.delta, problem.calibration)
    return {
        "method": method.name,
        **_summary(_accuracies(loaded, merged.delta)),
        "calibration_accuracy": statistics.fmean(s.accuracy for s in calibration.values()),
        "calibration_divergence": statistics.fmean(s.divergence for s in calibration.values()),
        "tuned": merged.tuned,
        "seconds": round(seconds, 2),
    }


def table(result: dict[str, Any]) -> Table:
    """Methods down, best first; tasks across."""
    tasks = list(result["individual"]["tasks"])
    shown = Table("method", "mean", *tasks, "seconds", title="test accuracy of merged encoders")
    for name, row in lines(result):
        cells = (f"{100 * row['tasks'][task]:.1f}" for task in tasks)
        shown.add_row(name, f"{100 * row['accuracy']:.2f}", *cells, str(row.get("seconds", "")))
    return shown


def _accuracies(loaded: Loaded, delta: Tensor) -> dict[str, float]:
    scores = loaded.problem.encoder.scores(loaded.problem.base + delta, loaded.test)
    return {task: score.accuracy for task, score in scores.items()}


def _summary(accuracies: dict[str, float]) -> dict[str, Any]:
    return {"accuracy": statistics.fmean(accuracies.values()), "tasks": accuracies}


def main(
    zoo: Annotated[Path, typer.Option(help="Folder of the classifiers.")] = Path("zoo"),
    base: Annotated[Path | None, typer.Option(help="Base of the classifiers.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only these methods.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    objective: Annotated[Objective, typer.Option(help="What is tuned for.")] = "accuracy",
    texts: Annotated[int | None, typer.Option(help="Calibration texts a task, at most.")] = None,
    test_texts: Annotated[int | None, typer.Option(help="Test texts a task, at most.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="Their store, by `nps compress`; else NPS makes it.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure known methods anew.")] = False,
    out: Annotated[Path, typer.Option(help="Result file; its rows are kept.")] = RESULT,
) -> None:
    """Test accuracy of every merging method."""
    quiet()
    if device == "cuda":
        choose_gpu(0)
    methods = chosen_methods(method, METHODS)
    tasks = classifiers(zoo, base or minilm.base_dir())
    if not tasks:
        raise typer.BadParameter(f"no classifiers in {zoo}; train them with benchmarks.zoo")
    settings = {"objective": objective, "texts": texts, "test_texts": test_texts}
    file = ResultFile(out, SCHEMA, "python -m benchmarks.fusion", device, settings)
    missing = [n for n in methods if again or not file.has(method=n)]
    if missing:
        loaded = load(
            tasks, device, n_rows=texts, n_test_rows=test_texts, objective=objective, store=store
        )
        file.about.update(references(loaded))
        for name in missing:
            row = measure(loaded, METHODS[name])
            file.put(row, method=name)
            print(f"{name}: {row['accuracy']:.4f} {row['tuned']}, {row['seconds']} s", flush=True)
    Console(width=160).print(table(file.content()))


if __name__ == "__main__":
    typer.run(main)
