"""Weights are put in place and taken out again, bit for bit, on every path that there is."""

from __future__ import annotations

import torch
from torch import Tensor

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

from nps_store.switch import cpu_loop, gpu_loop  # isort: skip

NUMEL, EVERY = 150_001, 7
"""Elements, over several blocks; every how many one is kept, enough for the compiled loops."""
DTYPES = (torch.float32, torch.bfloat16)


def plain_is_exact() -> str:
    """By torch's own indexing."""
    for dtype in DTYPES:
        live = _weights(dtype)
        before = live.clone()
        log = apply_([(live, AddAt(_positions(0), _amounts(0)))])
        _expect(live, expected(dtype, 0), "applied")
        revert_(log)
        _expect(live, before, "reverted")
    return _named(DTYPES)


def compiled_is_exact() -> str:
    """By numba's loop."""
    if not cpu_loop.is_available():
        raise LookupError("numba is not installed")
    return _resident("cpu")


def gpu_is_exact() -> str:
    """By Triton's."""
    if not torch.cuda.is_available():
        raise LookupError("there is no GPU")
    if not gpu_loop.is_available():
        raise LookupError("triton is not installed")
    return _resident("cuda")


def _resident(device: str) -> str:
    for dtype in DTYPES:
        live = _weights(dtype).to(device)
        before = live.clone()
        targets = Targets([live])
        tasks = [ResidentTask.of(targets, [(live, _delta(seed).to(device))]) for seed in (0, 1)]
        if not all(task.packed for task in tasks):
            raise AssertionError("the task was not packed for the compiled loop")
        log = UndoLog()
        for number in (0, 1, 0):
            switch_(log, tasks[number])
            _expect(live, expected(dtype, number), f"switched to {number}")
        revert_(log)
        _expect(live, before, "reverted")
    return _named(DTYPES)


def expected(dtype: torch.dtype, seed: int) -> Tensor:
    """The weights with a task in place, computed in the plainest way."""
    weights = _weights(dtype).float()
    weights[_positions(seed)] += _amounts(seed)
    return weights.to(dtype)


def _weights(dtype: torch.dtype) -> Tensor:
    return ((torch.arange(NUMEL) % 1021 - 510) / 4096).to(dtype)


def _positions(seed: int) -> Tensor:
    return torch.arange(seed, NUMEL, EVERY)


def _levels(seed: int) -> Tensor:
    return 1 - 2 * ((_positions(seed) // EVERY + seed) % 3 == 0).to(torch.int8)


def _amounts(seed: int) -> Tensor:
    return _levels(seed) * torch.tensor(0.0011 * (1 + seed))


def _delta(seed: int) -> SparseDelta:
    where = BlockIndex.of(_positions(seed).numpy(), NUMEL)
    scale = torch.tensor([0.0011 * (1 + seed)])
    return SparseDelta.of_levels(where, _levels(seed).numpy(), scale.numpy())


def _expect(found: Tensor, wanted: Tensor, when: str) -> None:
    differing = int((_bits(found) != _bits(wanted)).sum())
    if differing:
        raise AssertionError(f"{found.dtype}, {when}: {differing} of {NUMEL} values differ")


def _bits(tensor: Tensor) -> Tensor:
    return tensor.cpu().view(torch.int32 if tensor.element_size() == 4 else torch.int16)


def _named(dtypes: tuple[torch.dtype, ...]) -> str:
    return " and ".join(str(dtype).removeprefix("torch.") for dtype in dtypes) + ", bit for bit"
