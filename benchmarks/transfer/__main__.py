"""Put each task into the base by every method; what the task and what the base keep.

    python -m benchmarks.zoo --out zoo --device cuda
    python -m benchmarks.transfer --zoo zoo --device cuda

The base's ability is retrieval with its embeddings among Python's docstrings (`docstrings`), in
mean reciprocal rank. Methods are tuned on calibration data of both sides; what the result file has
is not measured again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import minilm
from benchmarks.choice import chosen_methods
from benchmarks.machine import choose_gpu
from benchmarks.merging.results import ResultFile
from benchmarks.quality.tasks import classifiers
from benchmarks.transfer import METHODS
from benchmarks.transfer.bench import BASE, FINE_TUNE, Bench
from benchmarks.transfer.docstrings import pairs, pairs_hash
from benchmarks.transfer.problem import KEEP
from benchmarks.transfer.table import table
from benchmarks.zoo import quiet

RESULT = Path("benchmarks") / "results" / "transfer.json"
SCHEMA = "nps.bench-transfer/1"
N_PAIRS = {"calibration": 512, "test": 1024}


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
    methods = chosen_methods(method, METHODS)
    everything = classifiers(zoo, base or minilm.base_dir())
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
        names = (FINE_TUNE, BASE, *methods)
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
