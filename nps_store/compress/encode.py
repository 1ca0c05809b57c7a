"""From a selection to the records that are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from formats.records import (
    DenseBits,
    DenseLevels,
    Record,
    SparseLevels,
    SparseValues,
    XorBits,
)
from nps_store.checkpoint import DTYPE_NAMES, DTYPES
from nps_store.records import to_bits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nps_store.compress.fine_tune import FineTune
    from nps_store.search import Selection

DENSE_SHARE = 0.3
"""From this share of kept elements on, levels are stored densely: positions would cost more."""


def dither_of(task: str, seed: int) -> str:
    """Names the random numbers by which a task's elements are selected: other tasks have others,
    since equal numbers would make their selections alike."""
    return f"{seed}:{task}"


@dataclass(frozen=True)
class Encoded:
    """One tensor as it goes into a store; fields as in `formats.task_writer.TaskWriter.add`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    base: int | None
    record: Record | None
    extra: Record | None = None


@dataclass(frozen=True)
class Encoding:
    """What a store holds of a task's weights; can be sent from process to process.

    Attributes:
        tensors: The tensors to write; None where everything is kept, since that is large and made
            from the fine-tune at any time.
        absent: Indices of base tensors from which nothing of the task derives, increasing.
        dither: Names the random numbers that the selection was made with.
    """

    tensors: tuple[Encoded, ...] | None
    absent: tuple[int, ...]
    dither: str | None

    @classmethod
    def of(cls, fine_tune: FineTune, selection: Selection | None) -> Encoding:
        """Encode what a selection keeps of the task vector, or everything where there is none.

        Raises:
            NonFiniteWeightError: A tensor holds NaN or Inf.
        """
        if selection is None:
            return cls(None, _absent(fine_tune, exact=True), None)
        tensors = tuple(_encode(fine_tune, selection))
        return cls(tensors, _absent(fine_tune, exact=False), selection.pool.dither)

    def tensors_of(self, fine_tune: FineTune) -> Iterable[Encoded]:
        """The tensors to write."""
        return _encode(fine_tune, None) if self.tensors is None else self.tensors


def _encode(fine_tune: FineTune, selection: Selection | None) -> Iterator[Encoded]:
    """All tensors of a task that differ from the base's.

    Args:
        fine_tune: What to encode.
        selection: What to keep of the task vector, or None to encode losslessly.

    Raises:
        NonFiniteWeightError: A tensor holds NaN or Inf.
    """
    index = {name: number for number, name in enumerate(fine_tune.base.names)}
    grown = {base_name for _, base_name in fine_tune.alignment.grown}
    rows = fine_tune.rows()
    for name, base_name in sorted((*fine_tune.alignment.shared, *fine_tune.alignment.grown)):
        exact = selection is None or not DTYPES[fine_tune.base.dtype(base_name)].is_floating_point
        if exact and _is_underivable(fine_tune, name, base_name):
            yield _whole(fine_tune, name)  # stored as a new tensor: nothing to derive it from
            continue
        numel = int(np.prod(fine_tune.base.shape(base_name), dtype=np.int64))
        record: Record | None
        if exact or selection is None:
            record = fine_tune.factors.get(base_name) or _xor(fine_tune, name, base_name)
        else:
            record = _kept(selection, base_name, numel)
        extra = None
        if base_name in grown:
            extra = _own(rows[base_name], exact=exact)
        is_renamed = name != fine_tune.alignment.prefix + base_name
        if record is not None or extra is not None or is_renamed:
            dtype = fine_tune.work_dtype(base_name)
            shape = fine_tune.checkpoint.shape(name)
            yield Encoded(name, dtype, shape, index[base_name], record, extra)
    for name in fine_tune.alignment.new:
        tensor = fine_tune.tensor(name)
        own = _own(tensor, exact=selection is None)
        yield Encoded(name, fine_tune.own_dtype(name), tuple(tensor.shape), None, own)


def _absent(fine_tune: FineTune, *, exact: bool) -> tuple[int, ...]:
    """Indices of base tensors from which nothing of the task derives, increasing."""
    index = {name: number for number, name in enumerate(fine_tune.base.names)}
    gone = {index[name] for name in fine_tune.alignment.absent}
    for name, base_name in (*fine_tune.alignment.shared, *fine_tune.alignment.grown):
        floating = DTYPES[fine_tune.base.dtype(base_name)].is_floating_point
        if (exact or not floating) and _is_underivable(fine_tune, name, base_name):
            gone.add(index[base_name])
    return tuple(sorted(gone))


def _kept(
    selection: Selection, base_name: str, numel: int
) -> SparseLevels | SparseValues | DenseLevels | None:
    """What a selection keeps of one tensor."""
    span = selection.spans.get(base_name)
    if span is None:
        return None
    positions = selection.positions[span].cpu().numpy()
    if selection.levels is None:
        values = selection.values_in(span).cpu().to(torch.bfloat16)
        return SparseValues(numel, positions, to_bits(values), "BF16")
    levels = selection.levels[span].cpu().numpy()
    scales = np.array([selection.scale_of(base_name)], dtype=np.float32)
    seed = selection.pool.seed_of(base_name)
    if len(levels) < DENSE_SHARE * numel:
        return SparseLevels(numel, positions, levels, scales, seed)
    dense = np.zeros(numel, dtype=np.int8)
    dense[positions] = levels
    return DenseLevels(numel, dense, scales)


def _is_underivable(fine_tune: FineTune, name: str, base_name: str) -> bool:
    """Whether the task's bits cannot be told from the base's: they are of another dtype."""
    return fine_tune.own_dtype(name) != fine_tune.base.dtype(base_name)


def _xor(fine_tune: FineTune, name: str, base_name: str) -> XorBits | None:
    base = to_bits(fine_tune.base.tensor(base_name))
    bits = to_bits(fine_tune.tensor(name))[: len(base)] ^ base
    if not bits.any():
        return None
    return XorBits(len(bits), bits, fine_tune.base.dtype(base_name))


def _whole(fine_tune: FineTune, name: str) -> Encoded:
    tensor = fine_tune.tensor(name)
    dtype = fine_tune.own_dtype(name)
    record = DenseBits(tensor.numel(), to_bits(tensor), dtype)
    return Encoded(name, dtype, tuple(tensor.shape), None, record)


def _own(tensor: Tensor, *, exact: bool) -> DenseBits | DenseLevels:
    """A tensor that no base helps with: matrices in int8 with a scale a row, others as they are."""
    if exact or tensor.ndim < 2 or not tensor.is_floating_point():
        return DenseBits(tensor.numel(), to_bits(tensor), DTYPE_NAMES[tensor.dtype])
    rows = tensor.to(torch.float32).reshape(len(tensor), -1)
    scales = (rows.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    levels = torch.round(rows / scales[:, None]).to(torch.int8)
    return DenseLevels(tensor.numel(), levels.reshape(-1).numpy(), scales.numpy())
