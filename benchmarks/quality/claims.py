"""The paper's claims as a table: what each choice of the method is worth, one changed at a time.

    python -m benchmarks.quality.claims --device cuda --jobs 16

`topk` is the paper's rule (real values of the largest |w tau|), `nps` the dithered one; both with
pruning inside the objective, unless a case says otherwise. `stored` is what `nps compress` writes:
the dithered rule, then learned by gradients. Searches see calibration data only, and
are scored on test data. How `topk` stands against TIES and DARE is taken from the result of
`benchmarks.quality`, where there is one.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import statistics
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import minilm
from benchmarks.machine import choose_gpu, circumstances, write_result
from benchmarks.quality import table as quality
from benchmarks.quality.curve import curves
from benchmarks.quality.tasks import CLASSIFIERS, FineTune, find, load
from benchmarks.quality.variations import KEEPS, SEEDS, Case, cases, measure
from benchmarks.zoo import quiet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


RESULT = Path("benchmarks") / "results" / "claims.json"
SCHEMA = "nps.bench-claims/1"
TASKS = ("section", "role", "use", "works_with")
PAPER_KEEPS = (0.04, 0.1, 0.2)
PAPER_METHODS = ("trim", "trim + scale", "DARE", "DARE + scale", "NPS top-k")
CASES_A_JOB = 5
"""Loading a model takes as long as two cases."""


def _work(
    number: int,
    task: FineTune,
    group: list[FineTune],
    chosen: list[Case],
    device: str,
    evaluations: int,
) -> list[dict[str, Any]]:
    """All cases of one task and one number of calibration rows."""
    quiet()
    if device == "cuda":
        choose_gpu(number)
    torch.set_num_threads(1)
    loaded = load(task, group, device, n_rows=chosen[0].n_rows)
    rows = []
    for case in chosen:
        try:
            rows.append(measure(loaded, case, evaluations))
        except TypeError as error:
            rows.append({**dataclasses.asdict(case), "task": task.name, "reason": str(error)})
        print(f"{task.name} {case.rule} {case.name}: {rows[-1].get('gain_kept', '-')}", flush=True)
    return rows


def summary(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, float]]]:
    """(rule, case, means over tasks); the seeds are one line with their spread."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if "reason" not in row:
            found[row["rule"], row["name"]].append(row)
    for (rule, name), group in found.items():
        yield rule, name, _means(group)
    for rule in dict.fromkeys(rule for rule, _ in found):
        names = ["as it is", *(f"seed {seed}" for seed in SEEDS[1:])]
        means = [_means(found[rule, name]) for name in names if (rule, name) in found]
        if len(means) > 1:
            spread = {
                f"{field} sd": statistics.stdev(mean[field] for mean in means)
                for field in ("gain_kept", "accuracy_ratio")
            }
            yield rule, f"{len(means)} seeds", {**_mean_of(means), **spread}


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
    return _mean_of([{f: row[f] for f in ("gain_kept", "accuracy_ratio")} for row in rows])


def _mean_of(rows: list[dict[str, float]]) -> dict[str, float]:
    return {field: statistics.fmean(row[field] for row in rows) for field in rows[0]}


def figures(result: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Of each rule: a title, and (case, accuracy ratio, gain kept) of all variations."""
    lines = list(summary(result["rows"]))
    for rule in dict.fromkeys(rule for rule, _, _ in lines):
        yield (
            f"{rule} at keep {KEEPS[rule]:g}",
            [
                (name, _figure(means, "accuracy_ratio"), _figure(means, "gain_kept"))
                for _, name, means in (line for line in lines if line[0] == rule)
            ],
        )


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """One table a rule."""
    for title, lines in figures(result):
        table = Table("case", "accuracy ratio", "gain kept", title=title, title_justify="left")
        for line in lines:
            table.add_row(*line)
        yield table


def versus(points: Iterable[dict[str, Any]]) -> Iterator[list[str]]:
    """`topk` beside TIES trim and DARE: accuracy ratios at the kept fractions of the paper."""
    found = curves(points, CLASSIFIERS)
    for name in PAPER_METHODS:
        at = {mean.setting["keep"]: mean.quality for mean in found.get(name, [])}
        yield [name, *(f"{at[keep]:.4f}" if keep in at else "-" for keep in PAPER_KEEPS)]


def _versus_table(points: Iterable[dict[str, Any]]) -> Table:
    keeps = (f"{keep:g}" for keep in PAPER_KEEPS)
    table = Table("method", *keeps, title="accuracy ratio at a kept fraction", title_justify="left")
    for line in versus(points):
        table.add_row(*line)
    return table


def _figure(means: dict[str, float], field: str) -> str:
    spread = means.get(f"{field} sd")
    return f"{means[field]:.4f}" + ("" if spread is None else f" +- {spread:.4f}")


def main(
    zoo: Annotated[Path, typer.Option(help="Folder of the classifiers.")] = Path("zoo"),
    base: Annotated[Path | None, typer.Option(help="Base of the classifiers.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks.")] = None,
    rule: Annotated[list[str] | None, typer.Option(help="Only these rules.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    jobs: Annotated[int, typer.Option(help="Processes at a time.")] = 1,
    evaluations: Annotated[int, typer.Option(help="Model evaluations of a search.")] = 90,
    out: Annotated[Path, typer.Option(help="Result file.")] = RESULT,
) -> None:
    """Measure every variation on some of the classifiers."""
    group = find(zoo, Path(), base or minilm.base_dir())
    chosen = [t for t in group if t.name in (task or TASKS)]
    work: dict[tuple[FineTune, str, int | None, int], list[Case]] = defaultdict(list)
    for one in chosen:
        for name in rule or KEEPS:
            for number, case in enumerate(cases(name)):
                work[one, name, case.n_rows, number // CASES_A_JOB].append(case)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context) as pool:
        longest_first = sorted(work.items(), key=lambda item: -len(item[1]))
        futures = [
            pool.submit(_work, number, one, group, some, device, evaluations)
            for number, ((one, *_), some) in enumerate(longest_first)
        ]
        rows = [row for future in futures for row in future.result()]
    result = {
        "schema": SCHEMA,
        "command": "python -m benchmarks.quality.claims",
        **circumstances(device),
        "evaluations": evaluations,
        "rows": rows,
    }
    write_result(out, result)
    console = Console(width=120)
    if quality.RESULT.is_file():
        console.print(_versus_table(json.loads(quality.RESULT.read_text())["points"]))
    for table in tables(result):
        console.print(table)
    for reason in sorted(
        {f"{r['rule']}, {r['name']}: {r['reason']}" for r in rows if "reason" in r}
    ):
        console.print(f"left out: {reason}")


if __name__ == "__main__":
    typer.run(main)
