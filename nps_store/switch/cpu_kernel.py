"""What `cpu_loop` runs; imported only where numba is.

One pass over the blocks of all tensors takes a task out of each block and puts the next one in. It
computes what torch does: one sum in float32, rounded once. Which NaN a NaN becomes is left open, as
it is by torch. The loop finds the weights by their addresses and what to write in the packed bytes
of a task; it allocates nothing and cannot raise.

Compiled code is kept on disk and renewed when this file changes; of other files it may use only
what never does, such as the columns of the table.
"""

# ruff: noqa: ANN001, ANN202 (numba infers the types of what it compiles)
# mypy: ignore-errors

from __future__ import annotations

import numba
import numpy as np
from llvmlite import ir
from numba import carray, prange, types
from numba.extending import intrinsic

from nps_store.switch.run import (
    AMOUNTS,
    BLOCKS,
    IS_DENSE,
    KIND,
    N_SCALES,
    OFFSETS,
    OLD,
    ROW,
    SCALES,
    STARTS,
)

FLOAT32, BFLOAT16, FLOAT16 = range(3)
"""Dtypes of weights."""

_AHEAD = 128
"""Entries between fetching a line of weights and using it. It is fetched into the second cache,
which waits for several times as many lines at once as the first: on models larger than the caches
that halves the time."""

_u16, _u32, _f32 = np.uint16, np.uint32, np.float32


@intrinsic
def _at(_typing, _address):
    """A pointer from an address."""
    return types.voidptr(types.int64), lambda _context, builder, _signature, args: builder.inttoptr(
        args[0], ir.IntType(8).as_pointer()
    )


@intrinsic
def _fetch(_typing, _address):
    """Fetches the line at an address."""

    def emit(context, builder, _signature, args):
        pointer, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        declared = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], declared)
        place = builder.inttoptr(args[0], pointer)
        builder.call(function, [place, word(0), word(2), word(1)])  # read, second cache, data
        return context.get_dummy_value()

    return types.void(types.int64), emit


def _bitcast(source, target, made):
    return intrinsic(
        lambda _typing, _value: (
            target(source),
            lambda _context, builder, _signature, args: builder.bitcast(args[0], made),
        )
    )


_as_float = _bitcast(types.uint32, types.float32, ir.FloatType())
_as_bits = _bitcast(types.float32, types.uint32, ir.IntType(32))


@numba.njit
def _widen(bits, dtype):
    """Raw bits of a weight to float32."""
    whole = _u32(bits)
    if dtype == FLOAT32:
        return _as_float(whole)
    if dtype == BFLOAT16:
        return _as_float(whole << _u32(16))
    sign = (whole & _u32(0x8000)) << _u32(16)
    rest = whole & _u32(0x7FFF)
    if rest >= _u32(0x7C00):  # infinite, or no number
        return _as_float(sign | _u32(0x7F800000) | ((rest & _u32(0x3FF)) << _u32(13)))
    if rest < _u32(0x400):  # subnormal
        return _as_float(sign | _as_bits(_f32(rest) * _f32(2.0**-24)))
    return _as_float(sign | ((rest << _u32(13)) + _u32(0x38000000)))


@numba.njit
def _narrow(value, dtype):
    """Raw bits of a weight, uint32, rounded to nearest, ties to even."""
    bits = _as_bits(value)
    if dtype == FLOAT32:
        return bits
    rest = bits & _u32(0x7FFFFFFF)
    if dtype == BFLOAT16:
        if rest > _u32(0x7F800000):
            return _u32(0x7FC0)
        return (bits + _u32(0x7FFF) + ((bits >> _u32(16)) & _u32(1))) >> _u32(16)
    sign = (bits >> _u32(16)) & _u32(0x8000)
    if rest > _u32(0x7F800000):
        return sign | _u32(0x7E00)
    if rest >= _u32(0x477FF000):  # rounds to 65,536 or more
        return sign | _u32(0x7C00)
    if rest < _u32(0x38800000):  # subnormal: the sum with a half rounds to units of 2**-24
        return sign | (_as_bits(_as_float(rest) + _f32(0.5)) - _u32(0x3F000000))
    rest += _u32(0xC8000FFF) + ((rest >> _u32(13)) & _u32(1))
    return sign | ((rest >> _u32(13)) & _u32(0x7FFF))


@numba.njit
def _amount(kind, place, entry):
    if kind == 0:
        byte = carray(_at(place), entry // 8 + 1, np.uint8)[entry >> 3]
        bit = (byte >> np.uint8(entry & 7)) & np.uint8(1)
        return _f32(1.0) - _f32(2.0) * _f32(bit)
    if kind == 1:
        return _f32(carray(_at(place), entry + 1, np.int8)[entry])
    if kind == 2:
        bits = _u32(carray(_at(place), entry + 1, np.uint16)[entry])
        return _as_float(bits << _u32(16))
    return carray(_at(place), entry + 1, np.float32)[entry]


def _exchange(
    weights_at, numels, first_block, tensor_of, pristine_at,
    out, out_at, old_out, passes_out,
    new, new_at, old_new, passes_new, number, dtype,
):  # fmt: skip
    """Take one task out and put another in; `old_out` and `old_new` have the weights' width."""
    raw, size = old_new.dtype, old_new.itemsize
    is_in = passes_out[0] != 0 and passes_out[1] == 0
    for block in prange(tensor_of.size):
        tensor = tensor_of[block]
        local = block - first_block[tensor]
        shift = local * 65536
        origin = weights_at[tensor]
        weights = carray(_at(origin + shift * size), 65536, raw)
        if is_in and local < out[tensor, BLOCKS]:
            if out[tensor, IS_DENSE]:
                pristine = carray(_at(pristine_at[tensor] + shift * size), 65536, raw)
                for entry in range(min(65536, numels[tensor] - shift)):
                    weights[entry] = pristine[entry]
            else:
                n_out = out[tensor, BLOCKS]
                starts = carray(_at(out_at + out[tensor, STARTS]), n_out + 1, np.int64)
                low, high, last = starts[local], starts[local + 1], starts[n_out] - 1
                offsets = carray(_at(out_at + out[tensor, OFFSETS]), last + 1, np.uint16)
                first, reach = out[tensor, OLD], local
                for entry in range(low, high):
                    later = min(entry + _AHEAD, last)
                    while later >= starts[reach + 1]:
                        reach += 1
                    _fetch(origin + size * (reach * 65536 + np.int64(offsets[later])))
                    weights[offsets[entry]] = old_out[first + entry]
        if local < new[tensor, BLOCKS]:
            n_new = new[tensor, BLOCKS]
            starts = carray(_at(new_at + new[tensor, STARTS]), n_new + 1, np.int64)
            low, high, last = starts[local], starts[local + 1], starts[n_new] - 1
            offsets = carray(_at(new_at + new[tensor, OFFSETS]), last + 1, np.uint16)
            kind, amounts = new[tensor, KIND], new_at + new[tensor, AMOUNTS]
            n_scales, row = new[tensor, N_SCALES], new[tensor, ROW]
            scales = carray(_at(new_at + new[tensor, SCALES]), n_scales, np.float32)
            scale, first = scales[0], new[tensor, OLD]
            is_logged, reach = not new[tensor, IS_DENSE], local
            for entry in range(low, high):
                later = min(entry + _AHEAD, last)
                while later >= starts[reach + 1]:
                    reach += 1
                _fetch(origin + size * (reach * 65536 + np.int64(offsets[later])))
                offset = np.int64(offsets[entry])
                if n_scales > 1:
                    scale = scales[(shift + offset) // row]
                bits = weights[offset]
                if is_logged:
                    old_new[first + entry] = bits
                value = _widen(bits, dtype) + _amount(kind, amounts, entry) * scale
                weights[offset] = _narrow(value, dtype)
    passes_out[1] = number
    passes_new[0] = number


def _compiled(function):
    try:
        return numba.njit(parallel=True, nogil=True, cache=True)(function)
    except (OSError, RuntimeError):  # no place on disk to keep it
        return numba.njit(parallel=True, nogil=True)(function)


exchange = _compiled(_exchange)
