"""How long a switch takes, beside the ways to do without a store.

    python -m benchmarks.switch

In one process, on the shipped store: revert one task and apply the next (random order), copy a
dense fine-tune's weights over live ones, load a dense fine-tune from its file.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

from benchmarks.machine import circumstances, write_result
from benchmarks.shipped import STORE, link_base
from nps_store.modeling import LiveBase
from nps_store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

RESULT = Path("benchmarks") / "results" / "switch.json"
ROUNDS = 110
WARM_UP = 10


def main(
    store: Annotated[Path, typer.Option(help="Store to switch among the tasks of.")] = STORE,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Measure switches among the tasks of a store."""
    with Store.open(store, base=link_base()) as opened:
        live = LiveBase.load(opened, device=device)
        measured = _measure(opened, live, device)
        identical = live.verify()
    result = {
        "schema": "nps.bench-switch/1",
        "command": "python -m benchmarks.switch",
        **circumstances(device),
        "threads": torch.get_num_threads(),
        "base_identical_afterwards": identical,
        "milliseconds": {what: _spread(times) for what, times in measured.items()},
    }
    write_result(RESULT, result)
    table = Table("what", "p50 ms", "p1", "p99", "repeats")
    for what, spread in result["milliseconds"].items():
        table.add_row(what, *(f"{spread[key]:.2f}" for key in ("p50", "p1", "p99")),
                      str(spread["n"]))  # fmt: skip
    Console().print(table)
    if not identical:
        raise typer.Exit(1)


def _measure(store: Store, live: LiveBase, device: str) -> dict[str, list[float]]:
    """Each way once a round, in turn: what else the machine does falls on all of them alike."""
    prepared = {name: live.prepare(name) for name in store.tasks}
    order = random.Random(0)  # noqa: S311 (an order, not a secret)
    other = {name: tensor.clone() for name, tensor in live.body.parameters.items()}
    target = {name: tensor.clone() for name, tensor in other.items()}

    def copy(source: dict[str, torch.Tensor]) -> None:
        for name, tensor in target.items():
            tensor.copy_(source[name])

    def switch() -> None:
        live.switch_(prepared[order.choice([name for name in store.tasks if name != live.current])])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dense.safetensors"
        save_file({name: tensor.cpu() for name, tensor in other.items()}, path)
        ways: dict[str, Callable[[], Any]] = {
            "switch, tasks resident": switch,
            "copy dense weights in memory": lambda: copy(other),
            "load dense safetensors, page cache warm": lambda: copy(load_file(path, device=device)),
            "read and decode a task": lambda: live.prepare(order.choice(store.tasks)),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, action in ways.items():
                seconds[way].append(_time(action, device))
    return {way: times[WARM_UP:] for way, times in seconds.items()}


def _time(action: Callable[[], Any], device: str) -> float:
    start = time.perf_counter()
    action()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _spread(seconds: list[float]) -> dict[str, float]:
    values = 1000 * np.array(seconds)
    points = {f"p{q}": float(np.percentile(values, q)) for q in (1, 50, 99)}
    return {**points, "n": len(values)}


if __name__ == "__main__":
    typer.run(main)
