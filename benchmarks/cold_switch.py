"""Switches to tasks that are only in the file, beside loading the dense fine-tune from its own.

Page cache warm, base already identified. Kept elements lie where dither would have them, so that
positions take the bits and the time that real ones do.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.switch_densities import spread, timed
from benchmarks.task_reads import write_tasks
from formats import Container
from formats.codecs import compiled
from nps_store.store import Store
from nps_store.switch import ResidentTask, Targets, UndoLog, revert_, switch_

if TYPE_CHECKING:
    from torch import Tensor

    from nps_store.contents import Change

NAMES = ("one", "two")


def measure(live: list[Tensor], keep: float, *, rounds: int, dense: bool = True) -> dict[str, Any]:
    """Milliseconds of both ways, each once a round, and of the parts of a switch.

    Args:
        live: The model's tensors.
        keep: Fraction kept in each.
        rounds: How often; one more warms up.
        dense: Also load a dense file, of as many bytes as the model.
    """
    compiled.warm_up()
    device = live[0].device.type
    before = [tensor.clone() for tensor in live]
    with tempfile.TemporaryDirectory() as folder:
        store, file = Path(folder) / "tasks.nps", Path(folder) / "dense.safetensors"
        write_tasks(store, [tuple(tensor.shape) for tensor in live], keep, NAMES)
        if dense:
            save_file({str(i): tensor.cpu() for i, tensor in enumerate(live)}, file)
        n_entries, seconds = _measure(live, store, file if dense else None, rounds, device)
        nbytes = store.stat().st_size / len(NAMES)
    return {
        "keep": keep,
        "n_entries": n_entries,
        "task_nbytes": nbytes,
        "milliseconds": {what: spread(times[1:]) for what, times in seconds.items()},
        "base_identical_afterwards": all(map(torch.equal, live, before)),
    }


def _measure(
    live: list[Tensor], path: Path, file: Path | None, rounds: int, device: str
) -> tuple[int, dict[str, list[float]]]:
    log, targets = UndoLog(keeps_copies=True), Targets(live)
    seconds: dict[str, list[float]] = {"read and decode": [], "pack": [], "switch": [], "load": []}
    with Container.open(path) as container:
        store = Store(path, container, base=None)  # its values are not asked for
        for name in (rounds + 1) * NAMES:
            read: list[Change] = []
            made: list[ResidentTask] = []
            seconds["read and decode"].append(timed(partial(_read, store, name, read), device))
            seconds["pack"].append(timed(partial(_pack, targets, live, read, made), device))
            seconds["switch"].append(timed(partial(switch_, log, made[0]), device))
            if file is not None and name == NAMES[0]:
                revert_(log)
                seconds["load"].append(timed(partial(_load, file, live, device), device))
    revert_(log)
    parts = zip(seconds["read and decode"], seconds["pack"], seconds["switch"], strict=True)
    seconds["cold switch"] = [sum(each) for each in parts]
    if file is None:
        del seconds["load"]
    n_entries = sum(packed.n_entries for packed in made[0].packed.values())
    return n_entries, seconds


def _read(store: Store, name: str, read: list[Change]) -> None:
    read += store.changes_at_once(name)


def _pack(
    targets: Targets, live: list[Tensor], read: list[Change], made: list[ResidentTask]
) -> None:
    pairs = ((tensor, change.patch) for tensor, change in zip(live, read, strict=True))
    made.append(ResidentTask.of(targets, pairs))


def _load(file: Path, live: list[Tensor], device: str) -> None:
    loaded = load_file(file, device=device)
    for number, tensor in enumerate(live):
        tensor.copy_(loaded[str(number)])
