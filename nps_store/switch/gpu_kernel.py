"""What `gpu_loop` launches. A module of its own, since Triton is imported with it."""

# ruff: noqa: ANN001, ANN201, ANN202, N803 (Triton's own names for types and compile-time constants)
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from nps_store.switch import run

_COLUMNS = tl.constexpr(run.COLUMNS)
_BLOCKS = tl.constexpr(run.BLOCKS)
_STARTS = tl.constexpr(run.STARTS)
_OFFSETS = tl.constexpr(run.OFFSETS)
_AMOUNTS = tl.constexpr(run.AMOUNTS)
_KIND = tl.constexpr(run.KIND)
_SCALES = tl.constexpr(run.SCALES)
_N_SCALES = tl.constexpr(run.N_SCALES)
_ROW = tl.constexpr(run.ROW)
_OLD = tl.constexpr(run.OLD)
_IS_DENSE = tl.constexpr(run.IS_DENSE)
_BLOCK = tl.constexpr(65536)


@triton.jit(do_not_specialize=["number"])  # it differs at each launch
def exchange(
    addresses, numels, first_block, tensor_of, pristine_at,
    out_table, out_data, old_out, passes_out,
    new_table, new_data, old_new, passes_new, number,
    KIND_OF_WEIGHTS: tl.constexpr, TILE: tl.constexpr, PREFETCH: tl.constexpr,
):  # fmt: skip
    """Restore one block of the weights and put the next task's entries into it."""
    block = tl.program_id(0)
    tensor = tl.load(tensor_of + block)
    local = block - tl.load(first_block + tensor)
    shift = local * _BLOCK
    raw: tl.constexpr = tl.int32 if KIND_OF_WEIGHTS == "float32" else tl.int16
    size: tl.constexpr = 4 if KIND_OF_WEIGHTS == "float32" else 2
    weights = (tl.load(addresses + tensor) + shift * size).to(tl.pointer_type(raw))

    row = out_table + tensor * _COLUMNS
    written, taken = tl.load(passes_out), tl.load(passes_out + 1)
    # A program of this very pass may have said already that it is taken out.
    if (written != 0) & ((taken == 0) | (taken == number)) & (local < tl.load(row + _BLOCKS)):
        if tl.load(row + _IS_DENSE) != 0:
            n = tl.minimum(tl.load(numels + tensor) - shift, _BLOCK)
            pristine = (tl.load(pristine_at + tensor) + shift * size).to(tl.pointer_type(raw))
            _copy(weights, pristine, n, TILE)
        else:
            _restore(weights, out_data, row, old_out, local, TILE, PREFETCH)
    tl.debug_barrier()  # both may write one element
    row = new_table + tensor * _COLUMNS
    if local < tl.load(row + _BLOCKS):
        _write(weights, new_data, row, old_new, local, KIND_OF_WEIGHTS, TILE)
    if block == 0:
        tl.store(passes_out + 1, number)
        tl.store(passes_new, number)


@triton.jit
def _copy(weights, pristine, n, TILE: tl.constexpr):
    lane = tl.arange(0, 4 * TILE)
    for start in range(0, n, 4 * TILE):
        at = start + lane
        tl.store(weights + at, tl.load(pristine + at, at < n), at < n)


@triton.jit
def _restore(weights, data, row, old, local, TILE: tl.constexpr, PREFETCH: tl.constexpr):
    starts = (data + tl.load(row + _STARTS)).to(tl.pointer_type(tl.int64))
    offsets = (data + tl.load(row + _OFFSETS)).to(tl.pointer_type(tl.int16))
    first = old + tl.load(row + _OLD)
    low, high = tl.load(starts + local), tl.load(starts + local + 1)
    lane = tl.arange(0, TILE)
    for start in range(low, high, TILE):
        entry = start + lane
        inside = entry < high
        offset = tl.load(offsets + entry, inside, other=0).to(tl.int32) & 0xFFFF
        if PREFETCH:  # a part of a sector is about to be written: the rest must come from memory
            _prefetch(weights + offset)
        bits = tl.load(first + entry, inside)
        tl.store(weights + offset, bits, inside, eviction_policy="evict_last")


@triton.jit
def _prefetch(place):
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [place.to(tl.int64, bitcast=True)],
        dtype=tl.int32, is_pure=False, pack=1,
    )  # fmt: skip


@triton.jit
def _write(weights, data, row, old, local, KIND_OF_WEIGHTS: tl.constexpr, TILE: tl.constexpr):
    starts = (data + tl.load(row + _STARTS)).to(tl.pointer_type(tl.int64))
    offsets = (data + tl.load(row + _OFFSETS)).to(tl.pointer_type(tl.int16))
    amounts, kind = data + tl.load(row + _AMOUNTS), tl.load(row + _KIND)
    scales = (data + tl.load(row + _SCALES)).to(tl.pointer_type(tl.float32))
    n_scales, length = tl.load(row + _N_SCALES), tl.load(row + _ROW)
    low, high = tl.load(starts + local), tl.load(starts + local + 1)
    first = old + tl.load(row + _OLD)
    logged = tl.where(tl.load(row + _IS_DENSE) == 0, high, low)  # up to which entry
    scale = tl.load(scales)
    lane = tl.arange(0, TILE)
    for start in range(low, high, TILE):
        entry = start + lane
        inside = entry < high
        offset = tl.load(offsets + entry, inside, other=0).to(tl.int32) & 0xFFFF
        bits = tl.load(weights + offset, inside, other=0, eviction_policy="evict_last")
        tl.store(first + entry, bits, entry < logged)
        amount = _amounts(amounts, kind, entry, inside, TILE)
        if n_scales > 1:
            of_row = (local * 65536 + offset) // length
            change = amount * tl.load(scales + of_row, inside, other=0)
        else:
            change = amount * scale
        value = _widen(bits, KIND_OF_WEIGHTS) + change
        new = _narrow(value, KIND_OF_WEIGHTS)
        tl.store(weights + offset, new, inside, eviction_policy="evict_last")


@triton.jit
def _amounts(place, kind, entry, inside, TILE: tl.constexpr):
    amount = tl.full((TILE,), 0, tl.float32)
    if kind == 0:
        byte = tl.load(place + (entry >> 3), inside, other=0).to(tl.int32)
        amount = 1.0 - 2.0 * ((byte >> (entry & 7).to(tl.int32)) & 1).to(tl.float32)
    elif kind == 1:
        levels = place.to(tl.pointer_type(tl.int8))
        amount = tl.load(levels + entry, inside, other=0).to(tl.float32)
    elif kind == 2:
        values = place.to(tl.pointer_type(tl.int16))
        bits = tl.load(values + entry, inside, other=0).to(tl.int32) << 16
        amount = bits.to(tl.float32, bitcast=True)
    else:
        amount = tl.load(place.to(tl.pointer_type(tl.float32)) + entry, inside, other=0)
    return amount


@triton.jit
def _widen(bits, KIND_OF_WEIGHTS: tl.constexpr):
    if KIND_OF_WEIGHTS == "float32":
        value = bits.to(tl.float32, bitcast=True)
    elif KIND_OF_WEIGHTS == "bfloat16":
        value = (bits.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        value = bits.to(tl.float16, bitcast=True).to(tl.float32)
    return value


@triton.jit
def _narrow(value, KIND_OF_WEIGHTS: tl.constexpr):
    """To nearest, ties to even."""
    if KIND_OF_WEIGHTS == "float32":
        bits = value.to(tl.int32, bitcast=True)
    elif KIND_OF_WEIGHTS == "bfloat16":
        whole = value.to(tl.uint32, bitcast=True)
        rounded = (whole + 0x7FFF + ((whole >> 16) & 1)) >> 16
        bits = tl.where(value != value, 0x7FC0, rounded).to(tl.int16)
    else:
        bits = value.to(tl.float16).to(tl.int16, bitcast=True)
    return bits
