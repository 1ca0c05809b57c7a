"""How long a switch takes, beside the ways to do without a store.

    python -m benchmarks.switch

In one process. On the shipped store: revert one task and apply the next (random order), copy a
dense fine-tune's weights over live ones, load a dense fine-tune from its file. On random tasks of
several densities (`benchmarks.switch_densities`): the same, for a model that fits the processor's
cache nearly and for one that does not at all.
"""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

from benchmarks import cold_switch
from benchmarks.machine import circumstances, write_result
from benchmarks.shipped import STORE, link_base
from benchmarks.switch_densities import measure_densities, medium_weights, spread, timed
from nps_store.errors import BadOptionError
from nps_store.modeling import LiveBase
from nps_store.store import Store
from nps_store.switch import ResidentTask, Targets, UndoLog, switch_

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RESULT = Path("benchmarks") / "results" / "switch.json"
ROUNDS = 110
WARM_UP = 10
SEED = 0
COLD_KEEP, COLD_ROUNDS = 0.005, 5


def main(
    store: Annotated[Path, typer.Option(help="Store to switch among the tasks of.")] = STORE,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    layers: Annotated[
        int, typer.Option(help="Of the large random model: 8 make 1.0 B parameters, 0 none.")
    ] = 8,
    threads: Annotated[int, typer.Option(help="Of torch and the loop; 0: all cores.")] = 0,
    rounds: Annotated[int, typer.Option(help="Repeats of the shipped store's lines.")] = ROUNDS,
) -> None:
    """Measure switches among the tasks of a store, and of random tasks."""
    if threads:
        torch.set_num_threads(threads)
    result = measure(store, base=link_base(), device=device, rounds=rounds)
    result["command"] = "python -m benchmarks.switch"
    result["densities"] = measure_densities(device, layers=layers)
    result["cold"] = {}
    if layers:
        weights = [tensor.to(device) for tensor in medium_weights(layers)]
        result["cold"] = cold_switch.measure(weights, COLD_KEEP, rounds=COLD_ROUNDS)
    write_result(RESULT, result)
    console = Console(width=120)
    for table in (switch_table(result), *_random_tables(result)):
        console.print(table)
    if not all(row["base_identical_afterwards"] for row in (result, *result["densities"])):
        raise typer.Exit(1)


def measure(store: Path, *, base: Path | None, device: str, rounds: int) -> dict[str, Any]:
    """Switches among the tasks of a store, each way `rounds` times.

    Raises:
        BadOptionError: The store has fewer than two tasks.
    """
    with Store.open(store, base=base) as opened:
        if len(opened.tasks) < 2:
            raise BadOptionError(f"{store}: switching takes two tasks, got {len(opened.tasks)}")
        live = LiveBase.load(opened, device=device)
        measured = _measure(opened, live, device, rounds)
        identical = live.verify()
    return {
        "schema": "nps.bench-switch/1",
        "command": f"nps bench switch {store}",
        **circumstances(device),
        "seed": SEED,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "base_identical_afterwards": identical,
        "milliseconds": {what: spread(times) for what, times in measured.items()},
    }


def switch_table(result: dict[str, Any]) -> Table:
    """The ways of switching among a store's tasks."""
    table = Table("what", "p50 ms", "p1", "p99", "p99.9", "repeats")
    for what, ms in result["milliseconds"].items():
        cells = (f"{ms[key]:.2f}" for key in ("p50", "p1", "p99", "p99.9"))
        table.add_row(what, *cells, str(ms["n"]))
    return table


def _random_tables(result: dict[str, Any]) -> Iterator[Table]:
    table = Table("model", "kept", "way", "p50 ms", "p1", "p99", "of a dense copy", "floor",
                  "restored from")  # fmt: skip
    for row in result["densities"]:
        ms = row["milliseconds"]
        table.add_row(row["model"], f"{row['keep']:.1%}", row["way"],
                      *(f"{ms[key]:.2f}" for key in ("p50", "p1", "p99")),
                      f"{row['ratio']:.3f}", f"{row['floor']:.3f}",
                      row["restored_from"])  # fmt: skip
    yield table
    if result["cold"]:
        table = Table(f"from the file, {COLD_KEEP:.1%} kept", "p50 ms", "p1", "p99")
        for what, ms in result["cold"]["milliseconds"].items():
            table.add_row(what, *(f"{ms[key]:.1f}" for key in ("p50", "p1", "p99")))
        yield table


def _measure(store: Store, live: LiveBase, device: str, rounds: int) -> dict[str, list[float]]:
    """Each way once a round, in turn: what else the machine does falls on all of them alike."""
    prepared = {name: live.prepare(name) for name in store.tasks}
    order = random.Random(SEED)  # noqa: S311 (an order, not a secret)
    other = {name: tensor.clone() for name, tensor in live.body.parameters.items()}
    target = {name: tensor.clone() for name, tensor in other.items()}

    def copy(source: dict[str, torch.Tensor]) -> None:
        for name, tensor in target.items():
            tensor.copy_(source[name])

    def switch() -> None:
        live.switch_(prepared[order.choice([name for name in store.tasks if name != live.current])])

    log, model = UndoLog(), Targets(target.values())

    def cold_switch() -> None:
        changes = store.changes_at_once(order.choice(store.tasks))
        switch_(log, ResidentTask.of(model, ((target[c.base], c.patch) for c in changes if c.base)))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dense.safetensors"
        save_file({name: tensor.cpu() for name, tensor in other.items()}, path)
        ways: dict[str, Callable[[], Any]] = {
            "switch, tasks resident": switch,
            "copy dense weights in memory": lambda: copy(other),
            "load dense safetensors, page cache warm": lambda: copy(load_file(path, device=device)),
            "switch from the file, page cache warm": cold_switch,
            "read and decode a task, its tokenizer and head": lambda: live.prepare(
                order.choice(store.tasks)
            ),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, action in ways.items():
                seconds[way].append(timed(action, device))
    return {way: times[min(WARM_UP, rounds // 2) :] for way, times in seconds.items()}


if __name__ == "__main__":
    typer.run(main)
