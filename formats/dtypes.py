"""Names and sizes of element types.

The container never does arithmetic on elements, so a dtype is a name (as safetensors spells it)
and a size; raw bits are always little-endian unsigned integers of that size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from formats.errors import SizeLimitError, UnknownEncodingError

if TYPE_CHECKING:
    from collections.abc import Sequence

ITEMSIZES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}
MAX_RANK = 16
MAX_TENSOR_NBYTES = 1 << 36


def itemsize(dtype: str) -> int:
    """Bytes of one element.

    Raises:
        UnknownEncodingError: No dtype has that name.
    """
    try:
        return ITEMSIZES[dtype]
    except KeyError:
        raise UnknownEncodingError(
            "unknown dtype", expected=f"one of {', '.join(ITEMSIZES)}", actual=repr(dtype)
        ) from None


def raw_dtype(dtype: str) -> np.dtype[np.unsignedinteger]:
    """The little-endian unsigned integer type that carries the raw bits of ``dtype``."""
    return np.dtype(f"<u{itemsize(dtype)}")


def element_count(shape: Sequence[int], dtype: str) -> int:
    """Number of elements of a tensor, checked against the format's limits.

    Raises:
        SizeLimitError: More than ``MAX_RANK`` dimensions or ``MAX_TENSOR_NBYTES`` bytes.
    """
    if len(shape) > MAX_RANK:
        raise SizeLimitError("too many dimensions", expected=f"<= {MAX_RANK}", actual=len(shape))
    numel = math.prod(shape)
    if numel * itemsize(dtype) > MAX_TENSOR_NBYTES or max(shape, default=0) > MAX_TENSOR_NBYTES:
        raise SizeLimitError(
            "tensor too large",
            expected=f"<= {MAX_TENSOR_NBYTES} bytes",
            actual=f"shape {tuple(shape)} of {dtype}",
        )
    return numel
