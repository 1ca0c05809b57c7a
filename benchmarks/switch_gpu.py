"""Switches of an 8 B model on a GPU, beside copies of its weights and the floor of the memory.

    python -m benchmarks.switch_gpu

Random bf16 weights as a real Llama's 291 tensors, and random tasks: time depends on how many
elements are kept, not on which. One process; each way once a round, in turn.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import cold_switch
from benchmarks.machine import circumstances, write_result
from benchmarks.pair import LARGE, shards
from benchmarks.switch_densities import copy_all, spread, switch_plainly, timed
from nps_store.switch import (
    AddAt,
    BlockIndex,
    ResidentTask,
    SparseDelta,
    Targets,
    UndoLog,
    apply_,
    gpu_loop,
    revert_,
    switch_,
)
from nps_store.switch.sparse import BLOCK, n_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch._prims_common import ShapeType

RESULT = Path("benchmarks") / "results" / "switch_gpu.json"
KEEPS = (0.005, 0.01, 0.05)
ROUNDS, WARM_UP = 30, 3
STRIDES_NBYTES = (32, 64, 128, 256)
PINNED_NBYTES = 2 << 30
TUNED = ("TILE", "N_WARPS", "PREFETCH")
CHOICES = tuple(
    (tile, warps, ahead)
    for tile, warps in ((512, 4), (512, 8), (512, 16), (1024, 8), (1024, 16), (1024, 32))
    for ahead in (False, True)
)


def main(
    layers: Annotated[int, typer.Option(help="Of the model; 32 make 8.0 B parameters.")] = 32,
    many: Annotated[int, typer.Option(help="Tasks to hold on the device at once.")] = 1000,
    seconds: Annotated[float, typer.Option(help="Of switching at random among them.")] = 30.0,
    cold: Annotated[bool, typer.Option(help="Also switch to tasks that are in the file.")] = True,
    tune: Annotated[bool, typer.Option(help="Also try other shapes of the loop.")] = False,
    out: Annotated[Path, typer.Option(help="Where to write the result.")] = RESULT,
) -> None:
    """Measure on the current CUDA device."""
    live = [_random_weights(shape) for part in shards(replace(LARGE, layers=layers))
            for shape in part.values()]  # fmt: skip
    dense = [tensor.clone() for tensor in live]
    memory = _memory(live, dense)
    result: dict[str, Any] = {
        "schema": "nps.bench-switch-gpu/1",
        "command": "python -m benchmarks.switch_gpu",
        **circumstances("cuda"),
        "numel": sum(tensor.numel() for tensor in live),
        "n_tensors": len(live),
        "memory": memory,
    }
    _show_memory(memory)
    targets = Targets(live)
    result["densities"] = [_density(live, dense, targets, keep, memory) for keep in KEEPS]
    write_result(out, result)
    if tune:
        result["choices"] = _choices(live, targets)
    write_result(out, result)
    result["many"] = _many(live, dense, targets, many, seconds)
    write_result(out, result)
    Console().print(result["many"])
    if cold:
        result["cold"] = cold_switch.measure(live, KEEPS[0], rounds=4, dense=False)
        write_result(out, result)
        Console().print(result["cold"])
    identical = all(each["base_identical_afterwards"] for each in result["densities"])
    if not (identical and result["many"]["base_identical_afterwards"]):
        raise typer.Exit(1)


def _memory(live: list[Tensor], dense: list[Tensor]) -> dict[str, Any]:
    """What the memory does: a dense copy, one from the host, and one element every few bytes,
    which tells how much memory moves for one of them."""
    copy_s = _median(lambda: copy_all(live, dense))
    nbytes = sum(tensor.nbytes for tensor in live)
    pinned = torch.empty(PINNED_NBYTES, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(PINNED_NBYTES, dtype=torch.uint8, device="cuda")
    bus_s = _median(lambda: target.copy_(pinned, non_blocking=True))
    flat = target.view(torch.bfloat16)
    strides = []
    for stride in STRIDES_NBYTES:
        some = flat[:: stride // flat.element_size()]
        seconds = _median(lambda some=some: some.add_(1))
        strides.append({"stride_nbytes": stride, "milliseconds": 1e3 * seconds,
                        "nanoseconds_a_touch": 1e9 * seconds / some.numel()})  # fmt: skip
    return {
        "copy_milliseconds": 1e3 * copy_s,
        "copy_nbytes_per_s": 2 * nbytes / copy_s,
        "host_nbytes_per_s": PINNED_NBYTES / bus_s,
        "dense_from_host_milliseconds": 1e3 * bus_s * nbytes / PINNED_NBYTES,
        "strides": strides,
    }


def _density(
    live: list[Tensor], dense: list[Tensor], targets: Targets, keep: float, memory: dict[str, Any]
) -> dict[str, Any]:
    patches = [[_random_delta(tensor, keep, seed) for tensor in live] for seed in (1, 2)]
    tasks = [ResidentTask.of(targets, zip(live, each, strict=True)) for each in patches]
    pinned = [task.pinned() for task in tasks]
    plain = [
        [(tensor, AddAt(p.index.cuda(), p.delta().cuda())) for tensor, p in
         zip(live, each, strict=True)]
        for each in patches
    ]  # fmt: skip
    log, plain_log = UndoLog(keeps_copies=True), UndoLog()
    seconds: dict[str, list[float]] = {
        way: [] for way in ("revert and apply", "from pinned host memory", "plain torch")
    }
    for number in range(ROUNDS + WARM_UP):
        at = number % 2
        switch_(log, tasks[1 - at])
        torch.cuda.synchronize()
        seconds["revert and apply"].append(_timed(partial(switch_, log, tasks[at])))
        upload = lambda at=at: switch_(log, pinned[1 - at].resident())  # noqa: E731
        seconds["from pinned host memory"].append(_timed(upload))
        revert_(log)
        apply_(plain[1 - at], log=plain_log)
        torch.cuda.synchronize()
        seconds["plain torch"].append(_timed(partial(switch_plainly, plain_log, plain[at])))
        revert_(plain_log)
    row = {
        "keep": keep,
        "n_entries": sum(packed.n_entries for packed in tasks[0].packed.values()),
        "resident_nbytes": tasks[0].nbytes,
        "milliseconds": {way: spread(times[WARM_UP:]) for way, times in seconds.items()},
        "floor_milliseconds": {
            f"{sector} bytes": 1e3 * _floor_s(keep, sector, memory) for sector in (32, 64)
        },
        "in_order_milliseconds": 1e3 * _in_order_s(keep, sum(tensor.numel() for tensor in live)),
        "upload_milliseconds": 1e3 * tasks[0].nbytes / memory["host_nbytes_per_s"],
        "base_identical_afterwards": _are_equal(live, dense),
    }
    _show(row, memory)
    return row


def _choices(live: list[Tensor], targets: Targets) -> list[dict[str, Any]]:
    """Other tiles, numbers of warps and prefetching than the ones in use."""
    usual, rows = {name: getattr(gpu_loop, name) for name in TUNED}, []
    for keep in KEEPS:
        pairs = [[(t, _random_delta(t, keep, seed)) for t in live] for seed in (1, 2)]
        tasks = [ResidentTask.of(targets, each) for each in pairs]
        for choice in CHOICES:
            vars(gpu_loop).update(zip(TUNED, choice, strict=True))
            log = UndoLog(keeps_copies=True)
            times = [_timed(partial(switch_, log, task)) for _ in range(6) for task in tasks]
            revert_(log)
            row = {"keep": keep, **dict(zip(TUNED, choice, strict=True))}
            row |= spread(times[WARM_UP:])
            print(row, flush=True)
            rows.append(row)
    vars(gpu_loop).update(usual)
    return rows


def _many(
    live: list[Tensor], dense: list[Tensor], targets: Targets, n_tasks: int, seconds: float
) -> dict[str, Any]:
    """Random switches among many resident tasks. Each has memory of its own; every eighth has the
    same content."""
    pairs = [[(t, _random_delta(t, KEEPS[0], seed)) for t in live] for seed in range(8)]
    first = [ResidentTask.of(targets, each) for each in pairs]
    tasks = [*first, *(_cloned(first[n % 8]) for n in range(8, n_tasks))]
    order, log, times = random.Random(0), UndoLog(keeps_copies=True), []  # noqa: S311
    switch_(log, tasks[0])
    while sum(times) < seconds:
        times.append(_timed(lambda: switch_(log, order.choice(tasks))))
    revert_(log)
    return {
        "n_tasks": n_tasks,
        "keep": KEEPS[0],
        "tasks_nbytes": sum(task.nbytes for task in tasks),
        "allocated_nbytes": torch.cuda.memory_allocated(),
        "milliseconds": spread(times),
        "base_identical_afterwards": _are_equal(live, dense),
    }


def _cloned(task: ResidentTask) -> ResidentTask:
    packed = {
        group: replace(each, table=each.table.clone(), data=each.data.clone())
        for group, each in task.packed.items()
    }
    return ResidentTask(packed, task.rest)


def _floor_s(keep: float, sector_nbytes: int, memory: dict[str, Any]) -> float:
    """Seconds for the sectors that two passes touch, read and written, at the speed of a copy."""
    n_elements = sector_nbytes // 2
    touched = 1 - (1 - keep) ** n_elements
    return 2 * touched * memory["copy_milliseconds"] / 1e3


def _in_order_s(keep: float, numel: int) -> float:
    """Seconds to change one element in as many lines of 64 bytes as hold an entry of one of two
    tasks, all equally far from each other and in order, with nothing else to read."""
    line = 32
    stride = round(line / (1 - (1 - keep) ** (2 * line)))
    some = torch.empty(PINNED_NBYTES // 2, dtype=torch.bfloat16, device="cuda").zero_()[::stride]
    return _median(lambda: some.add_(1)) * numel / stride / some.numel()


def _random_weights(shape: ShapeType) -> Tensor:
    return torch.randn(shape, dtype=torch.bfloat16, device="cuda") * 0.02


def _random_delta(tensor: Tensor, keep: float, seed: int) -> SparseDelta:
    generator = torch.Generator("cuda").manual_seed(seed)
    numel = tensor.numel()
    positions = torch.cat([
        torch.nonzero(torch.rand(min(1 << 28, numel - start), device="cuda", generator=generator)
                      < keep)[:, 0] + start
        for start in range(0, numel, 1 << 28)
    ])  # fmt: skip
    edges = torch.arange(n_blocks(numel) + 1, device="cuda") * BLOCK
    starts = torch.searchsorted(positions, edges)
    where = BlockIndex(numel, positions.to(torch.int16).cpu(), starts.cpu())
    levels = np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), len(positions))
    return SparseDelta.of_levels(where, levels, np.array([1e-3], np.float32))


def _are_equal(live: list[Tensor], dense: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(live, dense, strict=True))


def _timed(action: Callable[[], Any]) -> float:
    return timed(action, "cuda")


def _median(action: Callable[[], Any]) -> float:
    times: Sequence[float] = [_timed(action) for _ in range(13)]
    return float(np.median(times[WARM_UP:]))


def _show_memory(memory: dict[str, Any]) -> None:
    table = Table("memory", "figure")
    for name, value in memory.items():
        if name != "strides":
            table.add_row(name, f"{value:.4g}")
    for row in memory["strides"]:
        stride, touch = row["stride_nbytes"], row["nanoseconds_a_touch"]
        table.add_row(f"one element every {stride} bytes", f"{touch:.4f} ns each")
    Console().print(table)


def _show(row: dict[str, Any], memory: dict[str, Any]) -> None:
    table = Table(f"{row['keep']:.1%} kept", "p50 ms", "p1", "p99", "of a dense copy")
    for way, ms in row["milliseconds"].items():
        ratio = ms["p50"] / memory["copy_milliseconds"]
        cells = (f"{ms[key]:.2f}" for key in ("p50", "p1", "p99"))
        table.add_row(way, *cells, f"{ratio:.3f}")
    for sector, floor in row["floor_milliseconds"].items():
        table.add_row(f"floor of {sector}", f"{floor:.2f}")
    table.add_row("as many lines in order", f"{row['in_order_milliseconds']:.2f}")
    table.add_row("upload at bus speed", f"{row['upload_milliseconds']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
