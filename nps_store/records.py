"""From stored records to tensors and patches: the only place that knows both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from formats.records import (
    DenseBits,
    DenseLevels,
    Factors,
    Record,
    SparseLevels,
    SparseValues,
    XorBits,
)
from nps_store.checkpoint import DTYPES, raw_bytes
from nps_store.switch import (
    AddAll,
    AddProduct,
    BlockIndex,
    Multiply,
    Patch,
    Replace,
    SparseDelta,
    XorAll,
)
from nps_store.switch.patch import bits_dtype
from nps_store.switch.run import (
    AMOUNTS,
    BLOCKS,
    COLUMNS,
    KIND,
    KINDS,
    N_SCALES,
    OFFSETS,
    ROW,
    SCALES,
    STARTS,
    SparseRun,
)
from nps_store.switch.sparse import BLOCK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from formats.sign_blocks import SignBlocks


def patch_of(record: Record) -> Patch:
    """The change that a record means for the base tensor it was made against."""
    match record:
        case SparseLevels():
            where = BlockIndex.of(record.positions, record.numel)
            return SparseDelta.of_levels(where, record.levels, record.scales)
        case SparseValues():
            where = BlockIndex.of(record.positions, record.numel)
            return SparseDelta.of_values(where, from_bits(record.values, record.dtype))
        case DenseLevels():
            return AddAll(_tensor(record.levels), _tensor(record.scales))
        case XorBits():
            signed = record.bits.view(record.bits.dtype.str.replace("u", "i"))
            bits = _tensor(record.bits if record.bits.itemsize == 1 else signed)
            return XorAll(bits.view(bits_dtype(record.bits.itemsize)))
        case DenseBits():
            return Replace(from_bits(record.bits, record.dtype))
        case Factors():
            return _factors(record)


def run_of(blocks: SignBlocks) -> SparseRun:
    """The changes of many tensors at once, as they were decoded."""
    table = np.zeros((len(blocks.numels), COLUMNS), np.int64)
    table[:, BLOCKS] = -(-blocks.numels // BLOCK)
    table[:, STARTS], table[:, OFFSETS] = blocks.starts, blocks.offsets
    table[:, AMOUNTS], table[:, KIND] = blocks.signs, KINDS[torch.uint8]
    table[:, SCALES], table[:, N_SCALES] = blocks.scales, blocks.n_scales
    table[:, ROW] = np.maximum(1, blocks.numels // blocks.n_scales)
    return SparseRun(torch.from_numpy(blocks.data), table, blocks.numels, blocks.n_kept)


def values_of(record: Record, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor that has no base: the record applied to zeros."""
    patch = patch_of(record)
    if isinstance(patch, Replace):
        return patch.values.to(dtype).reshape(shape)
    flat = torch.zeros(record.numel, dtype=dtype)
    if patch.index is None:
        return patch.new_values(flat).reshape(shape)
    flat[patch.index] = patch.new_values(flat[patch.index])
    return flat.reshape(shape)


def to_bits(tensor: Tensor) -> NDArray[Any]:
    """Raw bits of a tensor as flat little-endian unsigned integers of its element size."""
    return np.frombuffer(raw_bytes(tensor), dtype=f"<u{tensor.element_size()}")


def from_bits(bits: NDArray[Any], dtype: str) -> Tensor:
    """Inverse of `to_bits`, flat."""
    if not len(bits):  # of which torch makes no tensor
        return torch.empty(0, dtype=DTYPES[dtype])
    return torch.frombuffer(bytearray(bits.tobytes()), dtype=DTYPES[dtype])


def _factors(record: Factors) -> AddProduct | Multiply:
    values = from_bits(record.factors, record.dtype)
    if not record.rank:
        shape = record.rows, record.numel // max(record.rows, 1)
        return Multiply(values, shape, record.form == "rows")
    transposed = record.form == "transposed"
    columns = record.numel // max(record.rows, 1)
    outer, inner = (columns, record.rows) if transposed else (record.rows, columns)
    left, right = values[: outer * record.rank], values[outer * record.rank :]
    return AddProduct(
        left.view(outer, record.rank), right.view(record.rank, inner), record.scale, transposed
    )


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array.copy())
