"""What the search costs beside the model's own passes, and how much memory it takes.

    python -m benchmarks.search_cost --zoo zoo --task section

One process, one task: the weight search and the learning of the selection at a held rate, then the
whole compression to the default target. The model's forward passes are timed where they happen.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks import minilm
from benchmarks.machine import circumstances
from nps_store.calibration import read_rows
from nps_store.checkpoint import Checkpoint
from nps_store.compress import Options, TaskSource, compress
from nps_store.compress.calibrate import Calibration
from nps_store.compress.fine_tune import FineTune
from nps_store.search import RULES, Plan, RateSearch, Refinement

RESULT = Path("benchmarks") / "results" / "search_cost.json"
KEEP = 0.006
EVALUATIONS = 60
STEPS = 60


class Passes:
    """Seconds spent in a module's forward passes."""

    def __init__(self, module: nn.Module) -> None:
        self.seconds = 0.0
        self.count = 0
        self._began = 0.0
        module.register_forward_pre_hook(lambda module, _: self._begin(module))
        module.register_forward_hook(lambda module, _inputs, _outputs: self._end(module))

    def _begin(self, module: nn.Module) -> None:
        self._began = _now(module)

    def _end(self, module: nn.Module) -> None:
        self.seconds += _now(module) - self._began
        self.count += 1


def main(
    zoo: Annotated[Path, typer.Option(help="Folder of the fine-tunes.")] = Path("zoo"),
    task: Annotated[str, typer.Option(help="Of the classification zoo.")] = "section",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    whole: Annotated[bool, typer.Option(help="Also compress to the default target.")] = True,
) -> None:
    """Cost of the search for one task."""
    data = zoo / "data" / f"{task}.calibration.jsonl"
    fine_tune = FineTune(task, Checkpoint(zoo / task), Checkpoint(minilm.base_dir()))
    before = _peak_nbytes()
    calibration = Calibration(fine_tune, read_rows(data), Options(device=device))
    passes = Passes(calibration.module)
    searched = _search(fine_tune, calibration, passes, Plan(EVALUATIONS, refinement=Refinement(0)))
    learned = _search(fine_tune, calibration, passes, Plan(0, refinement=Refinement(STEPS)))
    weights = 4 * sum(len(flat) for _, flat in fine_tune.vectors())
    result = {
        "schema": "nps.bench-search-cost/1",
        "command": f"python -m benchmarks.search_cost --task {task}",
        **circumstances(device),
        "task": task,
        "keep": KEEP,
        "search": searched,
        "learning": learned,
        "base_and_task_vector_nbytes": 2 * weights,
        "peak_nbytes": _peak_nbytes() - before
        if device == "cpu"
        else torch.cuda.max_memory_allocated(),
    }
    if whole:
        result["to_default_target"] = _whole(zoo, task, data, device)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    table = Table("what", "seconds", "of which forward passes", "ratio")
    for name, row in (("weight search", searched), ("learning", learned)):
        seconds, forward = row["seconds"], row["forward_s"]
        table.add_row(name, f"{seconds:.1f}", f"{forward:.1f}", f"{seconds / forward:.2f}")
    Console().print(table)
    Console().print({key: result[key] for key in result if key.endswith(("nbytes", "target"))})


def _search(
    fine_tune: FineTune, calibration: Calibration, passes: Passes, plan: Plan
) -> dict[str, Any]:
    """Time of a search at a held rate; the elements are collected, and the lessons prepared,
    before the clock starts."""
    search = RateSearch(
        fine_tune.vectors,
        RULES["nps"],
        calibration,
        plan=plan,
        seed="0:cost",
        learners=calibration.learner,
    )
    search.resize(search.at_keep(KEEP), KEEP) if plan.refinement.steps else search.unsearched(KEEP)
    first, forward, count, began = (
        search.n_evaluations, passes.seconds, passes.count, time.perf_counter(),
    )  # fmt: skip
    search.at_keep(KEEP)
    return {
        "seconds": time.perf_counter() - began,
        "forward_s": passes.seconds - forward,
        "forward_passes": passes.count - count,
        "evaluations": search.n_evaluations - first,
        "steps": plan.refinement.steps,
    }


def _whole(zoo: Path, task: str, data: Path, device: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        (stored,) = compress(
            minilm.base_dir(),
            [TaskSource(task, zoo / task, data)],
            Path(folder) / "one.nps",
            options=Options(device=device),
        )
    return {"seconds": stored.seconds, "keep": stored.keep, "nbytes": stored.nbytes}


def _now(module: nn.Module) -> float:
    if next(module.parameters()).is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak_nbytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    typer.run(main)
