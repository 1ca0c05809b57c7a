"""Put each task into the base by every method; what the task and what the base keep.

    python -m benchmarks.zoo --out zoo --device cuda
    python -m benchmarks.transfer --zoo zoo --device cuda

The base's ability is retrieval with its embeddings among Python's docstrings (`docstrings`), in
mean reciprocal rank. Methods are tuned on calibration data of both sides; what the result file has
is not measured again.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import minilm
from benchmarks.machine import choose_gpu
from benchmarks.merging.results import ResultFile
from benchmarks.quality.tasks import CLASSIFIERS, FineTune, find, load
from benchmarks.transfer import METHODS
from benchmarks.transfer.docstrings import Pair, pairs, pairs_hash
from benchmarks.transfer.method import Merged
from benchmarks.transfer.problem import KEEP, Sides, TransferProblem, calibration_sides
from benchmarks.transfer.retrieval import Retrieval
from benchmarks.zoo import quiet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESULT = Path("benchmarks") / "results" / "transfer.json"
SCHEMA = "nps.bench-transfer/1"
N_PAIRS = {"calibration": 512, "test": 1024}
FINE_TUNE, BASE = "fine-tune", "base"
FIGURES = ("accuracy", "recall", "mrr", "task_kept", "base_kept", "average", "h_score")


class Bench:
    """One task with both of its sides."""

    def __init__(
        self,
        task: FineTune,
        texts: Mapping[str, Sequence[Pair]],
        device: str,
        n_rows: int | None = None,
    ) -> None:
        """Load models and data.

        Args:
            task: The fine-tune.
            texts: Pairs of the splits.
            device: Where everything lies.
            n_rows: Calibration texts of the task, at most.
        """
        loaded = load(task, [task], device, n_rows=n_rows)
        problem = loaded.problem
        retrieval = {
            split: Retrieval(task.base, problem.layout, chosen, device)
            for split, chosen in texts.items()
        }
        sides = calibration_sides(problem, retrieval["calibration"])
        self.problem = TransferProblem(problem, sides)
        self._test = Sides(problem, loaded.held_out, retrieval["test"])

    def references(self) -> dict[str, Merged]:
        """The dense fine-tune and the base."""
        delta = self.problem.delta
        return {FINE_TUNE: Merged(delta), BASE: Merged(torch.zeros_like(delta))}

    def row(self, name: str, merged: Merged, seconds: float) -> dict[str, Any]:
        """What a vector gives on test data."""
        balance = self._test.balance(merged.delta)
        return {
            "task": self.problem.task.task,
            "method": name,
            "changed": float((merged.delta != 0).double().mean()),
            "accuracy": balance.accuracy,
            "recall": balance.found.recall,
            "mrr": balance.found.mrr,
            "task_kept": balance.task_kept,
            "base_kept": balance.base_kept,
            "average": balance.average,
            "h_score": balance.h_score,
            "tuned": merged.tuned,
            "seconds": round(seconds, 2),
        }

    def measure(self, name: str) -> dict[str, Any]:
        """Let a method work, then look at the test data."""
        start = time.perf_counter()
        merged = METHODS[name].merge(self.problem)
        return self.row(name, merged, time.perf_counter() - start)


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


def main(
    zoo: Annotated[Path, typer.Option(help="Folder of the classifiers.")] = Path("zoo"),
    base: Annotated[Path | None, typer.Option(help="Base of the classifiers.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only these methods.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    texts: Annotated[int | None, typer.Option(help="Calibration texts a task, at most.")] = None,
    pair_share: Annotated[float, typer.Option(help="Share of the docstrings to use.")] = 1.0,
    again: Annotated[bool, typer.Option("--again", help="Measure known rows anew.")] = False,
    out: Annotated[Path, typer.Option(help="Result file; its rows are kept.")] = RESULT,
) -> None:
    """What task and base keep of every method."""
    quiet()
    if device == "cuda":
        choose_gpu(0)
    unknown = set(method or ()) - METHODS.keys()
    if unknown:
        raise typer.BadParameter(f"no method {unknown.pop()!r}; there are {', '.join(METHODS)}")
    everything = [t for t in find(zoo, zoo, base or minilm.base_dir()) if t.group == CLASSIFIERS]
    tasks = [t for t in everything if not task or t.name in task]
    if not tasks:
        raise typer.BadParameter(f"no such classifiers in {zoo}; train them with benchmarks.zoo")
    chosen = {s: pairs(s, limit=max(1, round(n * pair_share))) for s, n in N_PAIRS.items()}
    settings = {
        "keep": KEEP,
        "texts": texts,
        "pairs": {split: [len(found), pairs_hash(found)] for split, found in chosen.items()},
    }
    file = ResultFile(out, SCHEMA, "python -m benchmarks.transfer", device, settings)
    for each in tasks:
        names = (FINE_TUNE, BASE, *(method or METHODS))
        missing = [n for n in names if again or not file.has(task=each.name, method=n)]
        if not missing:
            continue
        bench = Bench(each, chosen, device, texts)
        references = bench.references()
        for name in missing:
            known = references.get(name)
            row = bench.measure(name) if known is None else bench.row(name, known, 0)
            file.put(row, task=each.name, method=name)
            print(
                f"{each.name}: {name}: accuracy {row['accuracy']:.4f}, MRR {row['mrr']:.4f}, "
                f"H {row['h_score']:.4f}, {row['tuned']}, {row['seconds']} s",
                flush=True,
            )
    Console(width=160).print(table(file.content()["rows"]))


if __name__ == "__main__":
    typer.run(main)
