"""Values as small integers times a scale a tensor, and integers as records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from formats.records import DenseLevels, SparseLevels

if TYPE_CHECKING:
    from benchmarks.methods.archive import Array
    from benchmarks.methods.layout import Layout

SPARSE_SHARE = 0.3
"""Below this share of non-zero levels positions and signs are smaller than packed levels."""
MAX_LEVEL = 127
_ONE = np.ones(1, np.float32)


def record_of(levels: Tensor) -> SparseLevels | DenseLevels:
    """int8 [n] levels, stored sparsely or densely, whichever is smaller."""
    flat = levels.cpu().numpy().astype(np.int8, copy=False)
    if np.count_nonzero(flat) < SPARSE_SHARE * flat.size:
        positions = np.flatnonzero(flat)
        return SparseLevels(flat.size, positions, flat[positions], _ONE)
    return DenseLevels(flat.size, flat, _ONE)


def mask_record(mask: Tensor) -> SparseLevels:
    """bool [n] as the smallest of gaps, bitmap and compressed bitmap."""
    positions = np.flatnonzero(mask.cpu().numpy())
    return SparseLevels(mask.numel(), positions, np.ones(positions.size, np.int8), _ONE)


def levels_of(record: object) -> Tensor:
    """int8 [n] levels of a record."""
    if isinstance(record, DenseLevels):
        return torch.from_numpy(record.levels.copy())
    if not isinstance(record, SparseLevels):
        raise TypeError(f"no record of levels: {type(record).__name__}")
    flat = np.zeros(record.numel, np.int8)
    flat[record.positions] = record.levels
    return torch.from_numpy(flat)


def array_of(part: object) -> Tensor:
    """The tensor of an array part."""
    if not isinstance(part, np.ndarray):
        raise TypeError(f"no array: {type(part).__name__}")
    return torch.from_numpy(part.copy())


def array_part(tensor: Tensor) -> Array:
    """The array part of a tensor."""
    return tensor.detach().cpu().numpy()


def tensor_rms(layout: Layout, flat: Tensor) -> Tensor:
    """float32 [n_tensors], root mean square of each tensor's non-zero elements."""
    found = []
    for _, tensor in layout.views(flat):
        count = tensor.count_nonzero().clamp(min=1)
        found.append((tensor.double().square().sum() / count).sqrt().float())
    return torch.stack(found)


def quantize(flat: Tensor, step: Tensor) -> Tensor:
    """int8 [n] nearest levels at a step an element (0 where the step is)."""
    safe = torch.where(step > 0, step, torch.inf)
    return (flat / safe).round().clamp(-MAX_LEVEL, MAX_LEVEL).to(torch.int8)
