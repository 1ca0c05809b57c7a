"""The paper's claims as a table: what each choice of the method is worth, one changed at a time.

    python -m benchmarks.quality.claims --device cuda --jobs 16

`topk` is the paper's rule (real values of the largest |w tau|), `nps` the dithered one; both with
pruning inside the objective, unless a case says otherwise. Searches see calibration data only, and
are scored on test data. How `topk` stands against TIES and DARE is in `benchmarks.quality`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import statistics
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import minilm
from benchmarks.machine import circumstances
from benchmarks.quality.tasks import FineTune, Loaded, find, load
from benchmarks.zoo import quiet
from nps_store.search import RULES, Plan, RateSearch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from benchmarks.methods.problem import Problem
    from nps_store.search import Selection

RESULT = Path("benchmarks") / "results" / "claims.json"
SCHEMA = "nps.bench-claims/1"
TASKS = ("section", "role", "use", "works_with")
KEEPS = {"topk": 0.04, "nps": 0.005}
BANDS = (1, 2, 4, 6, 8, 12, 16, 24)
SIZES = (32, 64, 128, 256, 512)
SEEDS = (0, 1, 2, 3, 4)
CASES_A_JOB = 5
"""Loading a model takes as long as two cases."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One variation of the method.

    Attributes:
        name: What is varied, and to what.
        rule: Name of the rule that is varied.
        change: Fields of the rule that differ.
        n_rows: Calibration rows; None is all.
        seed: Of search and dither.
        literal: Search on the unpruned vector, prune after: the paper's order.
    """

    name: str
    rule: str
    change: dict[str, Any] = dataclasses.field(default_factory=dict)
    n_rows: int | None = None
    seed: int = 0
    literal: bool = False


def cases(rule: str) -> Iterator[Case]:
    """All variations of one rule."""
    yield Case("as it is", rule)
    for n_bands in BANDS:
        yield Case(f"M = {n_bands}", rule, {"n_bands": n_bands})
    yield Case("equal-count bands", rule, {"spacing": "count"})
    yield Case("scope: each tensor", rule, {"scope": "tensor"})
    yield Case("no search", rule, {"searched": False})
    if rule == "topk":
        yield Case("search first, prune after", rule, literal=True)
    for n_rows in SIZES:
        yield Case(f"{n_rows} calibration texts", rule, n_rows=n_rows)
    for seed in SEEDS[1:]:
        yield Case(f"seed {seed}", rule, seed=seed)


class Objective:
    """The search's view of a problem: losses of selections as shares of the base's.

    Implements `nps_store.search.Objective`.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._starts = {span.name: span.start for span in problem.layout.spans}

    def loss(self, selection: Selection) -> float:
        """KL on all calibration data over the base's."""
        return self._problem.loss(self.delta(selection)) / self._problem.base_loss

    def check(self, selection: Selection) -> float:  # noqa: ARG002 (the rate is given)
        """Nothing is set aside."""
        return math.nan

    def delta(self, selection: Selection) -> torch.Tensor:
        """float32 [numel] of a selection."""
        delta = torch.zeros_like(self._problem.base)
        for name, span, positions in selection.tensors():
            place = torch.from_numpy(positions + self._starts[name]).to(delta.device)
            delta[place] = torch.from_numpy(selection.values_in(span)).to(delta.device)
        return delta


def vectors(problem: Problem) -> Iterator[tuple[str, NDArray[Any]]]:
    """The task vector as the search reads it."""
    flat = problem.delta.cpu()
    for span, tensor in problem.layout.views(flat):
        yield span.name, tensor.reshape(-1).numpy()


def measure(loaded: Loaded, case: Case, evaluations: int) -> dict[str, Any]:
    """Search as a case says, and score what it keeps on test data.

    Raises:
        TypeError: The search offers no such variation.
    """
    start = time.perf_counter()
    problem = loaded.problem
    objective = Objective(problem)
    keep = KEEPS[case.rule]
    search = RateSearch(
        lambda: vectors(problem),
        dataclasses.replace(RULES[case.rule], **case.change),
        objective,
        # A search at a given rate takes three times the evaluations of a rung.
        plan=Plan(evaluations=evaluations // 3, seed=case.seed),
        seed=f"{case.seed}:{problem.task}",
    )
    found = search.resize(search.at_keep(1.0), keep) if case.literal else search.at_keep(keep)
    scores = loaded.held_out.scores(objective.delta(found.selection))
    return {
        **dataclasses.asdict(case),
        "task": problem.task,
        "keep": keep,
        "n_evaluations": search.n_evaluations,
        "calibration_loss": objective.loss(found.selection),
        **scores,
        "seconds": round(time.perf_counter() - start, 2),
    }


def _work(
    task: FineTune, group: list[FineTune], chosen: list[Case], device: str, evaluations: int
) -> list[dict[str, Any]]:
    """All cases of one task and one number of calibration rows."""
    quiet()
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


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """One table a rule."""
    lines = list(summary(result["rows"]))
    for rule in dict.fromkeys(rule for rule, _, _ in lines):
        table = Table(title=f"{rule} at keep {KEEPS[rule]:g}", title_justify="left")
        for header in ("case", "accuracy ratio", "gain kept"):
            table.add_column(header)
        for _, name, means in (line for line in lines if line[0] == rule):
            table.add_row(name, *(_figure(means, f) for f in ("accuracy_ratio", "gain_kept")))
        yield table


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
        futures = [
            pool.submit(_work, one, group, some, device, evaluations)
            for (one, *_), some in sorted(work.items(), key=lambda item: -len(item[1]))
        ]
        rows = [row for future in futures for row in future.result()]
    result = {
        "schema": SCHEMA,
        "command": "python -m benchmarks.quality.claims",
        **circumstances(device),
        "evaluations": evaluations,
        "rows": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    console = Console(width=120)
    for table in tables(result):
        console.print(table)
    for reason in sorted(
        {f"{r['rule']}, {r['name']}: {r['reason']}" for r in rows if "reason" in r}
    ):
        console.print(f"left out: {reason}")


if __name__ == "__main__":
    typer.run(main)
