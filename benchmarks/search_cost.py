"""What the search costs beside the model's own passes, in time and in memory.

    python -m benchmarks.search_cost --zoo zoo --task section

One process, one task: the weight search and the learning of the selection at a held rate, then the
whole compression to the default target. The model's forward passes are timed where they happen.
Memory is that of a second search, and beside it that of the plain model on the same batches: what
imports and first calls leave behind was there before either, and the activations are in both.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks import minilm
from benchmarks.machine import circumstances, write_result
from benchmarks.memory import memory_of
from nps_store.calibration import Row, read_rows
from nps_store.checkpoint import Checkpoint
from nps_store.compress import Options, TaskSource, compress
from nps_store.compress.calibrate import Calibration
from nps_store.compress.fine_tune import FineTune
from nps_store.modeling import Body
from nps_store.search import RULES, Plan, RateSearch, Refinement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.memory import Memory
    from nps_store.compress.options import Measure

RESULT = Path("benchmarks") / "results" / "search_cost.json"
KEEP = 0.006
EVALUATIONS = 60
STEPS = 60
MEMORY_EVALUATIONS = 9


@dataclass(frozen=True)
class Call:
    """What a module was called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, module: nn.Module, device: str) -> Any:  # noqa: ANN401 (as the module's)
        """The same call of another module."""
        args = [_to(each, device) for each in self.args]
        return module(*args, **{name: _to(each, device) for name, each in self.kwargs.items()})


class Passes:
    """Forward passes of a module.

    Attributes:
        seconds: Spent in them.
        count: How many there were.
        calls: One on each batch, without and with gradients; tensors on the CPU.
    """

    def __init__(self, module: nn.Module) -> None:
        self.seconds = 0.0
        self.count = 0
        self.calls: dict[bool, list[Call]] = {False: [], True: []}
        self._seen: set[tuple[bool, int]] = set()
        self._began = 0.0
        module.register_forward_pre_hook(self._begin, with_kwargs=True)
        module.register_forward_hook(self._end)

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        trains = torch.is_grad_enabled()
        # Batches stay alive: the address of the token ids tells one from another.
        given = (each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor))
        batch = trains, next(given).data_ptr()
        if batch not in self._seen:
            self._seen.add(batch)
            on_cpu = {name: _to(each, "cpu") for name, each in kwargs.items()}
            self.calls[trains].append(Call(tuple(_to(each, "cpu") for each in args), on_cpu))
        self._began = _now(module)

    def _end(self, module: nn.Module, _inputs: tuple[Any, ...], _outputs: object) -> None:
        self.seconds += _now(module) - self._began
        self.count += 1


def main(
    zoo: Annotated[Path, typer.Option(help="Folder of the fine-tunes.")] = Path("zoo"),
    task: Annotated[str, typer.Option(help="Of the zoo.")] = "section",
    base: Annotated[
        Path | None, typer.Option(help="Of the fine-tunes; MiniLM if left out.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    objective: Annotated[
        str | None, typer.Option(help="Of the search; the kind of model's own if left out.")
    ] = None,
    whole: Annotated[bool, typer.Option(help="Also compress to the default target.")] = True,
    out: Annotated[Path, typer.Option(help="Where to write the result.")] = RESULT,
) -> None:
    """Cost of the search for one task."""
    base = base or minilm.base_dir()
    fine_tune = FineTune(task, Checkpoint(zoo / task), Checkpoint(base))
    rows = read_rows(_data(zoo, task))
    options = Options(device=device, objective=cast("Measure | None", objective))
    calibration = Calibration(fine_tune, rows, options)
    passes = Passes(calibration.module)
    searched = _time(fine_tune, calibration, passes, Plan(EVALUATIONS, refinement=Refinement(0)))
    learned = _time(fine_tune, calibration, passes, Plan(0, refinement=Refinement(STEPS)))
    calls = passes.calls
    del calibration, passes
    if device == "cuda":
        torch.cuda.empty_cache()  # for the other process
    result = {
        "schema": "nps.bench-search-cost/2",
        "command": f"python -m benchmarks.search_cost --task {task}",
        **circumstances(device),
        "task": task,
        "keep": KEEP,
        "search": searched,
        "learning": learned,
        "memory": _apart(_memory, (task, zoo, base), options, calls),
    }
    if whole:
        result["to_default_target"] = _whole(base, zoo, task, device)
    write_result(out, result)
    _show(result)


def _time(
    fine_tune: FineTune, calibration: Calibration, passes: Passes, plan: Plan
) -> dict[str, Any]:
    """Time of a search at a held rate; the elements are collected before the clock starts."""
    search = _search(fine_tune, calibration, plan)
    search.unsearched(KEEP)
    forward, count, began = passes.seconds, passes.count, time.perf_counter()
    search.at_keep(KEEP)
    return {
        "seconds": time.perf_counter() - began,
        "forward_s": passes.seconds - forward,
        "forward_passes": passes.count - count,
        "evaluations": search.n_evaluations,
        "steps": plan.refinement.steps,
    }


def _search(fine_tune: FineTune, calibration: Calibration, plan: Plan) -> RateSearch:
    device = next(calibration.module.parameters()).device.type
    return RateSearch(
        partial(fine_tune.vectors, device=device),
        RULES["nps"],
        calibration,
        plan=plan,
        seed="0:cost",
        learners=calibration.learner,
        device=device,
    )


def _memory(
    paths: tuple[str, Path, Path], options: Options, batches: dict[bool, list[Call]]
) -> dict[str, Any]:
    """Peaks of the plain model and of the search, and what the search takes beside the model: the
    most by which a stage exceeds the model at the like work. In a process of its own, whose heap
    has no holes that others left."""
    memory = memory_of(options.device)
    importlib.import_module("cma")  # the search does so when it first needs it
    task, zoo, base = paths
    fine_tune = FineTune(task, Checkpoint(zoo / task), Checkpoint(base))
    _model_alone(memory, fine_tune, options.device, {k: v[:1] for k, v in batches.items()})
    alone = _model_alone(memory, fine_tune, options.device, batches)
    stages = _searched(memory, fine_tune, read_rows(_data(zoo, task)), options)
    beside = {
        name: stage["peak_nbytes"]
        - alone["training_peak_nbytes" if name == "learn" else "forward_peak_nbytes"]
        for name, stage in stages.items()
    }
    return {
        "model_alone": alone,
        "stages": stages,
        "peak_nbytes": max(stage["peak_nbytes"] for stage in stages.values()),
        "beside_the_model_nbytes": max(beside.values()),
        "base_and_task_vector_nbytes": 2 * alone["weights_nbytes"],
        "largest_tensor_nbytes": 4 * max(len(flat) for _, flat in fine_tune.vectors()),
    }


def _model_alone(
    memory: Memory, fine_tune: FineTune, device: str, batches: dict[bool, list[Call]]
) -> dict[str, int]:
    """Peaks of a plain model on the search's batches: forward passes, and steps of training,
    without optimizer, that drop each gradient as soon as it is complete."""
    before = memory.held()
    module = Body(fine_tune.base, device=device).module
    weights = memory.held() - before
    with memory.peak() as forward, torch.no_grad():
        for call in batches[False]:
            call(module, device)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
        parameter.register_post_accumulate_grad_hook(_drop_gradient)
    with memory.peak() as training, torch.enable_grad():
        for call in batches[True]:
            call(module, device)[0].float().square().mean().backward()
    return {
        "weights_nbytes": weights,
        "forward_peak_nbytes": forward.nbytes - before,
        "training_peak_nbytes": training.nbytes - before,
    }


def _searched(
    memory: Memory, fine_tune: FineTune, rows: list[Row], options: Options
) -> dict[str, dict[str, int]]:
    """The stages of a search: what each adds to what is held, and the peak while it lasts."""
    stages: dict[str, dict[str, int]] = {}
    before = memory.held()

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        held = memory.held()
        with memory.peak() as peak:
            yield
        stages[name] = {
            "held_nbytes": memory.held() - held,
            "peak_nbytes": peak.nbytes - before,
        }

    with stage("load, run base and fine-tune, prepare lessons"):
        calibration = Calibration(fine_tune, rows, options)
    with stage("collect"):
        search = _search(fine_tune, calibration, Plan(MEMORY_EVALUATIONS, refinement=Refinement(0)))
        search.unsearched(KEEP)
    with stage("search weights"):
        search.at_keep(KEEP)
    with stage("learn"):
        search = _search(fine_tune, calibration, Plan(0, refinement=Refinement(STEPS)))
        search.at_keep(KEEP)
    return stages


def _whole(base: Path, zoo: Path, task: str, device: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        (stored,) = compress(
            base,
            [TaskSource(task, zoo / task, _data(zoo, task))],
            Path(folder) / "one.nps",
            options=Options(device=device),
        )
    return {"seconds": stored.seconds, "keep": stored.keep, "nbytes": stored.nbytes}


def _show(result: dict[str, Any]) -> None:
    table = Table("what", "seconds", "of which forward passes", "ratio")
    for name in ("search", "learning"):
        seconds, forward = result[name]["seconds"], result[name]["forward_s"]
        table.add_row(name, f"{seconds:.1f}", f"{forward:.1f}", f"{seconds / forward:.2f}")
    Console().print(table)
    memory = result["memory"]
    table = Table("memory", "adds MB", "peak MB")
    for name, nbytes in memory["model_alone"].items():
        table.add_row(f"model alone: {name}", "", _mb(nbytes))
    for name, stage in memory["stages"].items():
        table.add_row(name, _mb(stage["held_nbytes"]), _mb(stage["peak_nbytes"]))
    for name, nbytes in memory.items():
        if isinstance(nbytes, int):
            table.add_row(name, "", _mb(nbytes))
    Console().print(table)


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:.0f}"


def _apart(function: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401 (as the function's)
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def _data(zoo: Path, task: str) -> Path:
    return zoo / "data" / f"{task}.calibration.jsonl"


def _to(value: Any, device: str) -> Any:  # noqa: ANN401 (arguments of any kind)
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _now(module: nn.Module) -> float:
    if next(module.parameters()).is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    typer.run(main)
