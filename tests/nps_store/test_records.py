"""Stored records mean what their arrays say: against an oracle in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.records import DenseBits, DenseLevels, SparseLevels, SparseValues, XorBits
from nps_store.checkpoint import DTYPES
from nps_store.records import from_bits, patch_of, to_bits, values_of
from nps_store.switch import apply_

KINDS = ["sparse_levels", "sparse_values", "dense_levels", "xor", "dense_bits"]
shapes = st.sampled_from([(), (1,), (0,), (0, 4), (6,), (4, 5), (3, 2, 2)])


def make(kind, shape, dtype, seed, *, per_row):
    """A record and the delta (or the bits) it stands for, as a flat array."""
    rng = np.random.default_rng(seed)
    numel = int(np.prod(shape, dtype=np.int64))
    rows = (shape[0] if shape else 1) if per_row and numel else 1
    scales = rng.random(rows).astype(np.float32)
    row = np.arange(numel) // max(numel // rows, 1)
    positions = np.flatnonzero(rng.random(numel) < 0.5).astype(np.int64)
    delta = np.zeros(numel, np.float32)
    match kind:
        case "sparse_levels":
            levels = rng.choice(np.array([-127, -1, 1, 3], np.int8), len(positions))
            delta[positions] = levels.astype(np.float32) * scales[row[positions]]
            return SparseLevels(numel, positions, levels, scales), delta
        case "sparse_values":
            values = torch.from_numpy(rng.standard_normal(len(positions))).to(torch.bfloat16)
            delta[positions] = values.float().numpy()
            return SparseValues(numel, positions, to_bits(values), "BF16"), delta
        case "dense_levels":
            levels = rng.integers(-128, 128, numel).astype(np.int8)
            delta = levels.astype(np.float32) * scales[row]
            return DenseLevels(numel, levels, scales), delta
        case _:
            size = DTYPES[dtype].itemsize
            bits = rng.integers(0, 1 << 8 * size, numel, dtype=np.uint64).astype(f"<u{size}")
            record = XorBits if kind == "xor" else DenseBits
            return record(numel, bits, dtype), bits


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    shape=shapes,
    dtype=st.sampled_from(["F32", "F16", "BF16", "F64"]),
    seed=st.integers(0, 2**31),
    per_row=st.booleans(),
)
def test_a_record_changes_the_base_as_its_arrays_say(kind, shape, dtype, seed, per_row):
    record, meaning = make(kind, shape, dtype, seed, per_row=per_row)
    torch.manual_seed(seed)
    base = torch.randn(shape).to(DTYPES[dtype])
    live = base.clone()
    apply_([(live, patch_of(record))])
    old = to_bits(base)
    if kind == "xor":
        expected = old ^ meaning
    elif kind == "dense_bits":
        expected = meaning
    else:
        wide = np.float64 if dtype == "F64" else np.float32
        total = base.reshape(-1).to(DTYPES["F64"] if wide is np.float64 else DTYPES["F32"]).numpy()
        expected = to_bits(torch.from_numpy(total + meaning.astype(wide)).to(DTYPES[dtype]))
    assert np.array_equal(to_bits(live), expected)
    assert live.shape == base.shape


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from([kind for kind in KINDS if kind != "xor"]),
    shape=shapes,
    dtype=st.sampled_from(["F32", "BF16"]),
    seed=st.integers(0, 2**31),
    per_row=st.booleans(),
)
def test_a_new_tensor_is_its_record_on_zeros(kind, shape, dtype, seed, per_row):
    record, meaning = make(kind, shape, dtype, seed, per_row=per_row)
    values = values_of(record, shape, DTYPES[dtype])
    assert values.shape == shape
    assert values.dtype == DTYPES[dtype]
    if kind == "dense_bits":
        assert np.array_equal(to_bits(values), meaning)
    else:
        expected = torch.from_numpy(meaning).to(DTYPES[dtype])
        assert torch.equal(values.reshape(-1), expected)


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
def test_bits_and_tensors_are_each_others_inverse(dtype, shape):
    tensor = torch.arange(int(np.prod(shape, dtype=int))).reshape(shape).to(DTYPES[dtype])
    bits = to_bits(tensor)
    assert bits.dtype == np.dtype(f"<u{tensor.element_size()}")
    back = from_bits(bits, dtype)
    assert back.dtype == tensor.dtype
    assert torch.equal(back.reshape(shape), tensor)


def test_tensors_do_not_alias_what_they_were_made_from():
    bits = np.arange(4, dtype="<u4")
    bits.flags.writeable = False
    tensor = from_bits(bits, "I32")
    tensor += 1
    assert bits.tolist() == [0, 1, 2, 3]
    patch = patch_of(DenseLevels(4, np.ones(4, np.int8), np.ones(1, np.float32)))
    patch.levels.zero_()
