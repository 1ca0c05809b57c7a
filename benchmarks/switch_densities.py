"""Switches among random tasks of given densities, beside a copy of the dense weights."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import minilm
from benchmarks.distribution import distribution
from benchmarks.pair import LARGE, shards
from nps_store.checkpoint import Checkpoint
from nps_store.switch import (
    AddAt,
    BlockIndex,
    ResidentTask,
    SparseDelta,
    Targets,
    UndoLog,
    apply_,
    revert_,
    switch_,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.lm_training import Size

LINE_NBYTES = 64
MEDIUM = replace(LARGE, hidden=2048, mlp=8192)
"""The widths of the Llama with 1.2 B parameters."""
COPY, SWITCH, PLAIN = "copy", "revert and apply", "plain torch"
SWITCH_COLD, PLAIN_COLD = f"{SWITCH}, caches cold", f"{PLAIN}, caches cold"
WAYS = (COPY, SWITCH, SWITCH_COLD, PLAIN, PLAIN_COLD)
SMALL_KEEPS, LARGE_KEEPS = (0.005, 0.01), (0.005, 0.01, 0.05)
SMALL_ROUNDS, LARGE_ROUNDS, WARM_UP = 60, 5, 2


def measure_densities(device: str, *, layers: int) -> list[dict[str, Any]]:
    """A row for each model, density and way of switching."""
    base = Checkpoint(minilm.base_dir())
    small = [base.tensor(name).clone() for name in base.names if base.dtype(name) == "F32"]
    rows = _measure("MiniLM, fp32", small, SMALL_KEEPS, SMALL_ROUNDS, device)
    if layers:
        tensors = medium_weights(layers)
        billions = sum(tensor.numel() for tensor in tensors) / 1e9
        rows += _measure(f"{billions:.1f} B, bf16", tensors, LARGE_KEEPS, LARGE_ROUNDS, device)
    return rows


def medium_weights(layers: int) -> list[Tensor]:
    """Random bf16 weights; 8 layers make 1.0 B parameters."""
    return _random_weights(replace(MEDIUM, layers=layers), torch.bfloat16)


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Their distribution in milliseconds."""
    return distribution(1000 * each for each in seconds)


def timed(action: Callable[[], Any], device: str) -> float:
    """Seconds until the device is done."""
    start = time.perf_counter()
    action()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _measure(
    model: str, weights: list[Tensor], keeps: Sequence[float], rounds: int, device: str
) -> list[dict[str, Any]]:
    """Every way once a round, in turn: what else the machine does falls on all of them alike."""
    live = [tensor.to(device) for tensor in weights]
    dense, other = ([tensor.clone() for tensor in live] for _ in range(2))
    targets = Targets(live)
    rows = []
    for keep in keeps:
        patches = [[_random_delta(tensor, keep, seed) for tensor in live] for seed in (1, 2)]
        tasks = [ResidentTask.of(targets, zip(live, each, strict=True)) for each in patches]
        plain = [
            [(tensor, AddAt(p.index, p.delta())) for tensor, p in zip(live, each, strict=True)]
            for each in patches
        ]
        log, plain_log = UndoLog(keeps_copies=True), UndoLog()
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(rounds + WARM_UP):
            if number == WARM_UP:
                seconds = {way: [] for way in WAYS}
            seconds[COPY].append(timed(partial(copy_all, other, dense), device))
            switch_(log, tasks[1])
            copy_all(other, dense)  # the caches hold these now
            seconds[SWITCH_COLD].append(timed(partial(switch_, log, tasks[0]), device))
            for task in 2 * tasks[::-1]:
                seconds[SWITCH].append(timed(partial(switch_, log, task), device))
            revert_(log)
            apply_(plain[0], log=plain_log)
            copy_all(other, dense)
            seconds[PLAIN_COLD].append(timed(partial(switch_plainly, plain_log, plain[1]), device))
            for each in 2 * plain:
                seconds[PLAIN].append(timed(partial(switch_plainly, plain_log, each), device))
            revert_(plain_log)
        identical = all(torch.equal(a, b) for a, b in zip(live, dense, strict=True))
        copy_s = float(np.median(seconds[COPY]))
        rows += [
            {
                "model": model,
                "keep": keep,
                "way": way,
                "milliseconds": spread(times),
                "ratio": float(np.median(times)) / copy_s,
                "floor": _floor(keep, live[0].element_size()),
                "resident_nbytes": tasks[0].nbytes,
                "restored_from": _restored_from(tasks[0]),
                "base_identical_afterwards": identical,
            }
            for way, times in seconds.items()
        ]
    return rows


def _restored_from(task: ResidentTask) -> str:
    """What the base's values come back from."""
    n_dense = sum(len(packed.dense) for packed in task.packed.values())
    return "a copy" if n_dense else "the log"


def switch_plainly(log: UndoLog, task: list[tuple[Tensor, AddAt]]) -> None:
    """Revert what a log holds and apply a task, by plain torch indexing."""
    revert_(log)
    apply_(task, log=log)


def _floor(keep: float, itemsize: int) -> float:
    """Bytes of the lines that two passes touch, read and written, over those of a copy, which reads
    the source, fetches what it overwrites, and writes."""
    touched = 1 - (1 - keep) ** (LINE_NBYTES // itemsize)
    return 2 * 2 * touched / 3


def copy_all(target: list[Tensor], source: list[Tensor]) -> None:
    """Overwrite all weights: what a switch costs without a store."""
    for one, other in zip(target, source, strict=True):
        one.copy_(other)


def _random_weights(size: Size, dtype: torch.dtype) -> list[Tensor]:
    """Of those shapes; a few million numbers over and over, since values make no difference."""
    numbers = (torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)) * 0.02).to(dtype)
    every = (torch.Size(shape) for shard in shards(size) for shape in shard.values())
    return [
        numbers.repeat(-(-shape.numel() // len(numbers)))[: shape.numel()].clone().reshape(shape)
        for shape in every
    ]


def _random_delta(tensor: Tensor, keep: float, seed: int) -> SparseDelta:
    rng = np.random.default_rng(seed)
    numel = tensor.numel()
    gaps = rng.geometric(keep, round(1.1 * keep * numel) + 100)
    positions = np.cumsum(gaps) - 1
    positions = positions[positions < numel]
    levels = rng.choice(np.array([-1, 1], np.int8), len(positions))
    scale = np.array([1e-3], np.float32)
    where = BlockIndex.of(positions, numel)
    return SparseDelta.of_levels(where, levels, scale).to(tensor.device)
