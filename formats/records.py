"""What one encoded tensor means, in numpy terms.

A record describes a flat tensor in C order, free of how it is stored. Delta records are added to
the base (to zero where there is none: new tensors, appended rows); bit records xor the raw bits of
the base or are the raw bits themselves. Records hold arrays and compare by identity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from formats.dtypes import raw_dtype
from formats.errors import InvalidRecordError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, slots=True)
class SparseLevels:
    """Delta ``levels * scales[row]`` at ``positions``, zero elsewhere.

    Attributes:
        numel: Elements of the flat tensor.
        positions: int64[n], strictly increasing.
        levels: int8[n], never zero.
        scales: float32[1], or float32[rows] with one scale per index of dimension 0.
        seed: Of the dither (:func:`formats.dither.tensor_seed`) that the positions were selected
            with, if they were. Writers may then code them by it, which takes a third of the bits;
            what was coded so has its seed when it is read.
    """

    numel: int
    positions: NDArray[np.int64]
    levels: NDArray[np.int8]
    scales: NDArray[np.float32]
    seed: int | None = None


@dataclass(frozen=True, eq=False, slots=True)
class SparseValues:
    """Delta ``values`` at ``positions``, zero elsewhere.

    Attributes:
        numel: Elements of the flat tensor.
        positions: int64[n], strictly increasing.
        values: Raw bits of the values, uint[n].
        dtype: What the raw bits mean.
        seed: As in :class:`SparseLevels`.
    """

    numel: int
    positions: NDArray[np.int64]
    values: NDArray[np.unsignedinteger]
    dtype: str
    seed: int | None = None


@dataclass(frozen=True, eq=False, slots=True)
class DenseLevels:
    """Delta ``levels * scales[row]`` everywhere; int8[numel], float32[1] or float32[rows]."""

    numel: int
    levels: NDArray[np.int8]
    scales: NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True)
class XorBits:
    """Raw bits of the task are the base's xor ``bits``, uint[numel]."""

    numel: int
    bits: NDArray[np.unsignedinteger]
    dtype: str


@dataclass(frozen=True, eq=False, slots=True)
class DenseBits:
    """The raw bits themselves, uint[numel]: new tensors and embedded bases."""

    numel: int
    bits: NDArray[np.unsignedinteger]
    dtype: str


@dataclass(frozen=True, eq=False, slots=True)
class Factors:
    """An adapter of a matrix of ``numel / rows`` columns.

    Attributes:
        numel: Elements of the flat tensor.
        rows: Of the matrix: extent of dimension 0.
        form: "product": add ``scale * left @ right``; "transposed": add the transpose of that;
            "rows" and "columns": multiply each row, or column, by its factor.
        rank: Columns of ``left`` and rows of ``right``; 0 where rows or columns are multiplied.
        factors: Raw bits, uint[n]: ``left``, then ``right``, both in C order; or a factor for each
            row or column.
        scale: Of a product, float32; 1 elsewhere.
        dtype: What the raw bits mean.
    """

    numel: int
    rows: int
    form: str
    rank: int
    factors: NDArray[np.unsignedinteger]
    scale: float
    dtype: str


FORMS = ("product", "transposed", "rows", "columns")
"""Of factors; those with a rank first."""


def factors_count(form: str, rank: int, *, numel: int, rows: int) -> int:
    """Factors of a record."""
    columns = numel // max(rows, 1)
    return {"rows": rows, "columns": columns}.get(form, rank * (rows + columns))


Record: TypeAlias = SparseLevels | SparseValues | DenseLevels | XorBits | DenseBits | Factors


def check_record(record: Record) -> None:
    """Checks everything about a record that can be known without its tensor's shape.

    Raises:
        InvalidRecordError: The arrays contradict each other or the record's own definition.
    """
    if record.numel < 0:
        raise InvalidRecordError("negative element count", actual=record.numel)
    match record:
        case SparseLevels():
            _check_positions(record.positions, record.numel)
            _check_array("levels", record.levels, np.dtype(np.int8), record.positions.size)
            if np.count_nonzero(record.levels) != record.levels.size:
                raise InvalidRecordError("a kept level is zero")
            _check_scales(record.scales)
            _check_seed(record.seed)
        case SparseValues():
            _check_positions(record.positions, record.numel)
            _check_seed(record.seed)
            _check_array("values", record.values, raw_dtype(record.dtype), record.positions.size)
        case DenseLevels():
            _check_array("levels", record.levels, np.dtype(np.int8), record.numel)
            _check_scales(record.scales)
        case XorBits() | DenseBits():
            _check_array("bits", record.bits, raw_dtype(record.dtype), record.numel)
        case Factors():
            _check_factors(record)


def check_covers(record: Record | None, shape: Sequence[int] | None) -> None:
    """Checks a record completely, against the shape that it is to cover.

    Raises:
        InvalidRecordError: It contradicts itself or the shape.
    """
    if record is None:
        return
    if shape is None:
        raise InvalidRecordError("an extra record for a tensor that did not grow")
    check_record(record)
    if record.numel != math.prod(shape):
        raise InvalidRecordError(
            "record does not cover its shape",
            expected=f"{math.prod(shape)} elements of {tuple(shape)}",
            actual=record.numel,
        )
    rows = shape[0] if shape else 1
    if isinstance(record, Factors) and record.rows != rows:
        raise InvalidRecordError("factors of other rows", expected=rows, actual=record.rows)
    if isinstance(record, SparseLevels | DenseLevels) and record.scales.size not in (1, rows):
        raise InvalidRecordError(
            "wrong number of scales", expected=f"1 or {rows}", actual=record.scales.size
        )


def _check_factors(record: Factors) -> None:
    if record.form not in FORMS:
        raise InvalidRecordError("unknown form", expected=" or ".join(FORMS), actual=record.form)
    if (record.rank > 0) != (record.form in FORMS[:2]) or record.rank < 0:
        raise InvalidRecordError("products have a rank, others none", actual=record.rank)
    if record.rows < 0 or record.rows * (record.numel // max(record.rows, 1)) != record.numel:
        raise InvalidRecordError("rows do not divide the elements", actual=record.rows)
    count = factors_count(record.form, record.rank, numel=record.numel, rows=record.rows)
    _check_array("factors", record.factors, raw_dtype(record.dtype), count)
    if not math.isfinite(record.scale) or float(np.float32(record.scale)) != record.scale:
        raise InvalidRecordError("scale is no finite float32", actual=record.scale)
    if not record.rank and record.scale != 1:
        raise InvalidRecordError("only products have a scale", actual=record.scale)


def _check_array(name: str, array: NDArray[Any], dtype: np.dtype[Any], size: int) -> None:
    if array.dtype != dtype or array.shape != (size,):
        raise InvalidRecordError(
            f"wrong type or length of {name}",
            expected=f"{dtype}[{size}]",
            actual=f"{array.dtype}{list(array.shape)}",
        )


def _check_positions(positions: NDArray[np.int64], numel: int) -> None:
    _check_array("positions", positions, np.dtype(np.int64), positions.size)
    if not positions.size:
        return
    if positions[0] < 0 or positions[-1] >= numel:
        raise InvalidRecordError("position outside the tensor", expected=f"0 <= position < {numel}")
    if not (positions[1:] > positions[:-1]).all():
        raise InvalidRecordError("positions are not strictly increasing")


def _check_scales(scales: NDArray[np.float32]) -> None:
    _check_array("scales", scales, np.dtype(np.float32), scales.size)
    if not np.isfinite(scales).all():
        raise InvalidRecordError("a scale is not finite")


def _check_seed(seed: int | None) -> None:
    if seed is not None and not 0 <= seed < 1 << 64:
        raise InvalidRecordError("seed out of range", expected="0 <= seed < 2**64", actual=seed)
