"""The compiled loop of a switch on the CPU, for those who install the ``fast`` extra.

One pass over the blocks of all tensors takes a task out of each block and puts the next one in,
while the block is in the processor's cache. It computes what torch does: one sum in float32,
rounded once. Which NaN a NaN becomes is left open, as it is by torch.

One call serves a whole model: the loop finds the weights by their addresses, and what to write in
the packed bytes of a task. It allocates nothing and cannot raise.
"""

# ruff: noqa: ANN401 (numba infers the types of what it compiles)

from __future__ import annotations

import functools
import sys
import threading
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from nps_store.switch.packed import (
    AMOUNTS,
    BLOCKS,
    COLUMNS,
    IS_DENSE,
    KIND,
    N_SCALES,
    OFFSETS,
    OLD,
    ROW,
    SCALES,
    STARTS,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from nps_store.switch.written import Written

_AHEAD = 128
"""Entries between fetching a line of weights and using it. It is fetched into the second cache,
which waits for several times as many lines at once as the first: on models larger than the caches
that halves the time."""

_ONE_AT_A_TIME = threading.Lock()
"""Some of numba's thread pools end the process when two threads enter them."""


@functools.cache
def is_available() -> bool:
    """Whether numba is installed; does not load it."""
    return sys.byteorder == "little" and find_spec("numba") is not None


@functools.cache
def loop(dtype: torch.dtype) -> Callable[..., None]:
    """The loop for weights of a dtype; the first use in a process takes seconds to compile."""
    numba: Any = import_module("numba")
    np: Any = import_module("numpy")
    carray, prange = numba.carray, numba.prange
    at, fetch, as_float, as_bits = _intrinsics()
    widen, narrow = _conversions(dtype, as_float, as_bits)
    raw = np.uint32 if dtype.itemsize == 4 else np.uint16
    size = dtype.itemsize
    ahead = _AHEAD

    @numba.njit(inline="always")  # type: ignore[untyped-decorator]
    def amount(kind: Any, place: Any, entry: Any) -> Any:
        if kind == 0:
            byte = carray(at(place), entry // 8 + 1, np.uint8)[entry >> 3]
            bit = (byte >> np.uint8(entry & 7)) & np.uint8(1)
            return np.float32(1.0) - np.float32(2.0) * np.float32(bit)
        if kind == 1:
            return np.float32(carray(at(place), entry + 1, np.int8)[entry])
        if kind == 2:
            bits = np.uint32(carray(at(place), entry + 1, np.uint16)[entry])
            return as_float(bits << np.uint32(16))
        return carray(at(place), entry + 1, np.float32)[entry]

    def switch(
        weights_at: Any, numels: Any, first_block: Any, tensor_of: Any, pristine_at: Any,
        out: Any, out_at: Any, old_out: Any, passes_out: Any,
        new: Any, new_at: Any, old_new: Any, passes_new: Any, number: Any,
    ) -> None:  # fmt: skip
        is_in = passes_out[0] != 0 and passes_out[1] == 0
        for block in prange(tensor_of.size):
            tensor = tensor_of[block]
            local = block - first_block[tensor]
            shift = local * 65536
            origin = weights_at[tensor]
            weights = carray(at(origin + shift * size), 65536, raw)
            if is_in and local < out[tensor, BLOCKS]:
                if out[tensor, IS_DENSE]:
                    pristine = carray(at(pristine_at[tensor] + shift * size), 65536, raw)
                    for entry in range(min(65536, numels[tensor] - shift)):
                        weights[entry] = pristine[entry]
                else:
                    n_out = out[tensor, BLOCKS]
                    starts = carray(at(out_at + out[tensor, STARTS]), n_out + 1, np.int64)
                    low, high, last = starts[local], starts[local + 1], starts[n_out] - 1
                    offsets = carray(at(out_at + out[tensor, OFFSETS]), last + 1, np.uint16)
                    first, reach = out[tensor, OLD], local
                    for entry in range(low, high):
                        later = min(entry + ahead, last)
                        while later >= starts[reach + 1]:
                            reach += 1
                        fetch(origin + size * (reach * 65536 + np.int64(offsets[later])))
                        weights[offsets[entry]] = old_out[first + entry]
            if local < new[tensor, BLOCKS]:
                n_new = new[tensor, BLOCKS]
                starts = carray(at(new_at + new[tensor, STARTS]), n_new + 1, np.int64)
                low, high, last = starts[local], starts[local + 1], starts[n_new] - 1
                offsets = carray(at(new_at + new[tensor, OFFSETS]), last + 1, np.uint16)
                kind, amounts = new[tensor, KIND], new_at + new[tensor, AMOUNTS]
                n_scales, row = new[tensor, N_SCALES], new[tensor, ROW]
                scales = carray(at(new_at + new[tensor, SCALES]), n_scales, np.float32)
                scale, first = scales[0], new[tensor, OLD]
                is_logged, reach = not new[tensor, IS_DENSE], local
                for entry in range(low, high):
                    later = min(entry + ahead, last)
                    while later >= starts[reach + 1]:
                        reach += 1
                    fetch(origin + size * (reach * 65536 + np.int64(offsets[later])))
                    offset = np.int64(offsets[entry])
                    if n_scales > 1:
                        scale = scales[(shift + offset) // row]
                    bits = weights[offset]
                    if is_logged:
                        old_new[first + entry] = bits
                    weights[offset] = narrow(widen(bits) + amount(kind, amounts, entry) * scale)
        passes_out[1] = number
        passes_new[0] = number

    compiled: Callable[..., None] = numba.njit(parallel=True, nogil=True)(switch)
    return compiled


def exchange_(out: Written, new: Written, number: int) -> None:
    """Take one out and put another in; see `written`."""
    numba: Any = import_module("numba")
    group = new.packed.group
    fixed = (group.addresses, group.numels, group.first_block, group.tensor_of)
    run = loop(group.dtype)
    with _ONE_AT_A_TIME:
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        run(
            *(each.numpy() for each in fixed), new.copies.table(group).numpy(),
            *_side(out), *_side(new), number,
        )  # fmt: skip


def _side(written: Written) -> tuple[Any, int, Any, Any]:
    """The table, where the packed bytes begin, the old bits and the numbers of the passes."""
    data, n_tensors = written.packed.data, len(written.packed.group.tensors)
    table = data[: 8 * n_tensors * COLUMNS].view(torch.int64).view(n_tensors, COLUMNS)
    old = written.old.numpy().view(f"<u{written.old.element_size()}")
    return table.numpy(), data.data_ptr(), old, written.passes.numpy()


@functools.cache
def _intrinsics() -> tuple[Any, Any, Any, Any]:
    """What numba has no names for: a pointer from an address, a fetch of the line at an address,
    and float32 from its bits and back."""
    types: Any = import_module("numba").types
    ir: Any = import_module("llvmlite.ir")
    intrinsic: Any = import_module("numba.extending").intrinsic

    def as_pointer(_typing: Any, _address: Any) -> Any:
        return types.voidptr(
            types.int64
        ), lambda _context, builder, _signature, args: builder.inttoptr(
            args[0], ir.IntType(8).as_pointer()
        )

    def prefetch(_typing: Any, _address: Any) -> Any:
        def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            pointer, word = ir.IntType(8).as_pointer(), ir.IntType(32)
            declared = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
            function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], declared)
            place = builder.inttoptr(args[0], pointer)
            builder.call(function, [place, word(0), word(2), word(1)])  # read, second cache, data
            return context.get_dummy_value()

        return types.void(types.int64), emit

    def bitcast(source: Any, target: Any, made: Any) -> Any:
        return lambda _typing, _value: (
            target(source),
            lambda _context, builder, _signature, args: builder.bitcast(args[0], made),
        )

    return (
        intrinsic(as_pointer),
        intrinsic(prefetch),
        intrinsic(bitcast(types.uint32, types.float32, ir.FloatType())),
        intrinsic(bitcast(types.float32, types.uint32, ir.IntType(32))),
    )


def _conversions(dtype: torch.dtype, as_float: Any, as_bits: Any) -> tuple[Any, Any]:
    """Raw bits of a weight to float32, and back with rounding to nearest, ties to even."""
    njit: Any = import_module("numba").njit(inline="always")
    u32: Any = import_module("numpy").uint32
    u16: Any = import_module("numpy").uint16
    f32: Any = import_module("numpy").float32

    def from_bfloat16(bits: Any) -> Any:
        return as_float(u32(bits) << u32(16))

    def to_bfloat16(value: Any) -> Any:
        bits = as_bits(value)
        if bits & u32(0x7FFFFFFF) > u32(0x7F800000):
            return u16(0x7FC0)
        return u16((bits + u32(0x7FFF) + ((bits >> u32(16)) & u32(1))) >> u32(16))

    def from_float16(bits: Any) -> Any:
        sign = (u32(bits) & u32(0x8000)) << u32(16)
        rest = u32(bits) & u32(0x7FFF)
        if rest >= u32(0x7C00):  # infinite, or no number
            return as_float(sign | u32(0x7F800000) | ((rest & u32(0x3FF)) << u32(13)))
        if rest < u32(0x400):  # subnormal
            return as_float(sign | as_bits(f32(rest) * f32(2.0**-24)))
        return as_float(sign | ((rest << u32(13)) + u32(0x38000000)))

    def to_float16(value: Any) -> Any:
        bits = as_bits(value)
        sign = (bits >> u32(16)) & u32(0x8000)
        rest = bits & u32(0x7FFFFFFF)
        if rest > u32(0x7F800000):
            return u16(sign | u32(0x7E00))
        if rest >= u32(0x477FF000):  # rounds to 65,536 or more
            return u16(sign | u32(0x7C00))
        if rest < u32(0x38800000):  # subnormal: the sum with a half rounds to units of 2**-24
            return u16(sign | (as_bits(as_float(rest) + f32(0.5)) - u32(0x3F000000)))
        rest += u32(0xC8000FFF) + ((rest >> u32(13)) & u32(1))
        return u16(sign | ((rest >> u32(13)) & u32(0x7FFF)))

    if dtype == torch.bfloat16:
        return njit(from_bfloat16), njit(to_bfloat16)
    if dtype == torch.float16:
        return njit(from_float16), njit(to_float16)
    return njit(lambda bits: as_float(bits)), njit(lambda value: as_bits(value))
