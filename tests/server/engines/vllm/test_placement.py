"""A task placed through any layout is the task's tensors put through that layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nps_store.errors import UnsupportedTaskError
from nps_store.switch import (
    AddAll,
    AddProduct,
    BlockIndex,
    Multiply,
    Replace,
    SparseDelta,
    XorAll,
    apply_,
    revert_,
)
from server.engines.vllm.layout import Layout, Piece
from server.engines.vllm.placement import placed
from server.errors import UnsafeLayoutError

COLUMNS = 6
ROWS = {"q": 8, "k": 4, "v": 4}


def piece_of(parameter, numbers, part):
    """The runs of a tensor's elements `numbers` [rows, columns] that become `part` of a
    parameter, given by the flat places of its elements."""
    source, local = numbers.reshape(-1), part.reshape(-1)
    cut = np.flatnonzero((np.diff(source) != 1) | (np.diff(local) != 1)) + 1
    first = np.concatenate([[0], cut])
    length = np.diff(np.concatenate([first, [len(source)]]))
    return Piece.of(parameter, source[first], local[first], length)


def fused(*, shard: slice, columns: slice, interleaved: bool) -> Layout:
    """q, k and v in one parameter with padding behind, as one of several processes holds them."""
    names, parts, pieces, row = list(ROWS), [], {}, 0
    kept = {
        name: np.arange(n * COLUMNS).reshape(n, COLUMNS)[shard][:, columns]
        for name, n in ROWS.items()
    }
    total = sum(len(each) for each in kept.values())
    width = kept["q"].shape[1]
    places = np.arange(total * width).reshape(total, width)
    if interleaved:
        places = places[np.random.default_rng(0).permutation(total)]
    for name in names:
        parts.append(places[row : row + len(kept[name])])
        row += len(kept[name])
        pieces[name] = (piece_of("qkv", kept[name], parts[-1]),)
    return Layout({"qkv": torch.zeros(total + 2, width)}, pieces)


LAYOUTS = {
    "fused": fused(shard=slice(None), columns=slice(None), interleaved=False),
    "by rows of heads": fused(shard=slice(None), columns=slice(None), interleaved=True),
    "column-parallel": fused(shard=slice(2, 4), columns=slice(None), interleaved=False),
    "row-parallel": fused(shard=slice(None), columns=slice(3, 6), interleaved=False),
}


def put(layout, tensors):
    """Plainly: every element of every tensor to its place."""
    made = {name: torch.zeros_like(p) for name, p in layout.parameters.items()}
    for name, pieces in layout.pieces.items():
        for piece in pieces:
            source, local = map(torch.from_numpy, piece.elements())
            made[piece.parameter].view(-1)[local] = tensors[name].reshape(-1)[source]
    return made


def random_patch(kind, n_rows, rng):
    numel = n_rows * COLUMNS
    scales = rng.random(n_rows if kind.endswith("rows") else 1, dtype=np.float32)
    if kind.startswith(("signs", "levels")):
        positions = np.flatnonzero(rng.random(numel) < 0.4)
        high = 1 if kind.startswith("signs") else 3
        levels = rng.integers(1, high + 1, len(positions)) * rng.choice([-1, 1], len(positions))
        where = BlockIndex.of(positions, numel)
        return SparseDelta.of_levels(where, levels.astype(np.int8), scales)
    if kind.startswith("values"):
        where = BlockIndex.of(np.flatnonzero(rng.random(numel) < 0.4), numel)
        dtype = torch.bfloat16 if "bf16" in kind else torch.float32
        values = torch.from_numpy(rng.standard_normal(len(where)))
        return SparseDelta.of_values(where, values.to(dtype))
    if kind.startswith("dense"):
        levels = rng.integers(-3, 4, numel).astype(np.int8)
        return AddAll(torch.from_numpy(levels), torch.from_numpy(scales))
    if kind.startswith("product"):
        left, right = (torch.from_numpy(rng.integers(-8, 9, shape).astype(np.float32))
                       for shape in ((n_rows, 2), (2, COLUMNS)))  # fmt: skip
        if kind == "product transposed":
            return AddProduct(right.T, left.T, 0.5, transposed=True)
        return AddProduct(left, right, 0.5, transposed=False)
    if kind.startswith("factors"):
        by_row = kind == "factors of rows"
        factors = torch.from_numpy(rng.standard_normal(n_rows if by_row else COLUMNS))
        return Multiply(factors.float(), (n_rows, COLUMNS), by_row)
    if kind == "exact":
        return XorAll(torch.from_numpy(rng.integers(-(1 << 20), 1 << 20, numel, dtype=np.int32)))
    return Replace(torch.from_numpy(rng.standard_normal((n_rows, COLUMNS), dtype=np.float32)))


KINDS = (
    "signs", "signs by rows", "levels", "levels by rows", "values", "values bf16",
    "dense", "dense by rows", "exact", "replace",
    "product", "product transposed", "factors of rows", "factors of columns",
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    layout=st.sampled_from(sorted(LAYOUTS)),
    kinds=st.fixed_dictionaries({name: st.sampled_from([None, *KINDS]) for name in ROWS}),
    seed=st.integers(0, 2**16),
)
def test_a_placed_task_is_the_task_put_through_the_layout(layout, kinds, seed):
    rng = np.random.default_rng(seed)
    layout = LAYOUTS[layout]
    base = {
        name: torch.from_numpy(rng.standard_normal((n, COLUMNS), dtype=np.float32))
        for name, n in ROWS.items()
    }
    base["q"][0] = -0.0  # a change of a neighbour must not make it +0.0
    patches = {n: random_patch(kind, ROWS[n], rng) for n, kind in kinds.items() if kind}
    task = {name: tensor.clone() for name, tensor in base.items()}
    apply_((task[name], patch) for name, patch in patches.items())
    for name, values in put(layout, base).items():
        layout.parameters[name].copy_(values)
    log = apply_(placed(layout, patches.items()))
    expected = put(layout, task)
    for name, parameter in layout.parameters.items():
        assert torch.equal(parameter.view(torch.int32), expected[name].view(torch.int32))
    revert_(log)
    for name, values in put(layout, base).items():
        assert torch.equal(layout.parameters[name].view(torch.int32), values.view(torch.int32))


def test_sign_bits_and_scales_by_row_stay_what_they_are():
    """A fused parameter's change takes the bytes of the changes it is made of, and a few scales."""
    rng = np.random.default_rng(0)
    patches = {name: random_patch("signs", n, rng) for name, n in ROWS.items()}
    [(_, merged)] = placed(LAYOUTS["fused"], patches.items())
    assert merged.amounts.dtype == torch.uint8
    assert merged.scales.numel() == sum(ROWS.values()) + 2
    [(_, alone)] = placed(LAYOUTS["fused"], [("q", patches["q"])])
    assert alone.scales.numel() == 1


def test_a_dense_change_is_of_its_own_part():
    patch = random_patch("exact", ROWS["k"], np.random.default_rng(0))
    [(view, _)] = placed(LAYOUTS["fused"], [("k", patch)])
    assert view.numel() == ROWS["k"] * COLUMNS
    assert view.data_ptr() == LAYOUTS["fused"].parameters["qkv"][8].data_ptr()


def test_what_lies_in_another_process_gives_nothing():
    patch = SparseDelta.of_values(BlockIndex.of(np.array([0]), 48), torch.ones(1))
    assert list(placed(LAYOUTS["column-parallel"], [("q", patch)])) == []


def test_two_tensors_at_one_place():
    layout = LAYOUTS["fused"]
    twice = Layout(layout.parameters, {**layout.pieces, "twin": layout.pieces["q"]})
    assert layout.held_as_one() == []
    assert twice.held_as_one() == [("q", "twin")]
    patch = random_patch("signs", ROWS["q"], np.random.default_rng(0))
    with pytest.raises(UnsupportedTaskError, match="qkv"):
        list(placed(twice, [("q", patch), ("twin", patch)]))


def test_the_self_test_names_the_parameter_that_is_not_as_loaded():
    layout = LAYOUTS["row-parallel"]
    tensors = {name: torch.randn(n, COLUMNS) for name, n in ROWS.items()}
    for name, values in put(layout, tensors).items():
        layout.parameters[name].copy_(values)
    layout.check(tensors.__getitem__)
    layout.parameters["qkv"][3, 1] += 1
    with pytest.raises(UnsafeLayoutError, match="'qkv' does not hold the checkpoint's 'q'"):
        layout.check(tensors.__getitem__)


def test_a_transposed_parameter_is_refused():
    numbers = np.arange(1024).reshape(32, 32)
    with pytest.raises(UnsafeLayoutError, match="scattered"):
        piece_of("w", numbers.T, numbers)


def test_an_element_in_two_places_is_refused():
    with pytest.raises(UnsafeLayoutError, match="twice"):
        piece_of("w", np.array([[0, 1, 2], [0, 1, 2]]), np.arange(6))


def test_factors_of_a_tensor_in_disorder_are_refused():
    layout = LAYOUTS["fused"]
    piece = layout.pieces["q"][0]
    source = np.arange(0, ROWS["q"] * COLUMNS, 4)  # runs that are no rows
    local = np.random.default_rng(0).permutation(source)
    shuffled = Piece.of(piece.parameter, source, local, np.full(len(source), 4))
    layout = Layout(layout.parameters, {"q": (shuffled,)})
    patch = Multiply(torch.ones(COLUMNS), (ROWS["q"], COLUMNS), by_row=False)
    with pytest.raises(UnsupportedTaskError, match="order"):
        list(placed(layout, [("q", patch)]))
