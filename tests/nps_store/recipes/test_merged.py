"""Merged changes against plain dense arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nps_store.recipes import Recipe, merged
from nps_store.recipes.merged import groups, most_groups
from nps_store.recipes.recipe import MAX_SEED
from nps_store.switch import AddAll, AddAt, BlockIndex, Replace, SparseDelta, apply_, revert_
from nps_store.switch.patch import XorAll, bits_dtype

NUMEL = 70_000
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def some_patch(kind, base, seed):
    """A patch of a tensor, and the change that it stands for, float32 [numel]."""
    order = np.random.default_rng(seed)
    dense = torch.zeros(len(base))
    if kind == "levels":
        levels = torch.from_numpy(order.integers(-3, 4, len(base)).astype(np.int8))
        patch = AddAll(levels, torch.tensor([0.25]))
        return patch, levels.float() * 0.25
    if kind in {"replace", "xor"}:
        new = (base.float() + torch.from_numpy(order.normal(size=len(base))).float()).to(base.dtype)
        bits = bits_dtype(base.element_size())
        patch = Replace(new) if kind == "replace" else XorAll(new.view(bits) ^ base.view(bits))
        return patch, new.float() - base.float()
    positions = np.flatnonzero(order.random(len(base)) < 0.01)
    values = torch.from_numpy(order.choice([-0.5, 0.5], len(positions)).astype(np.float32))
    dense[torch.from_numpy(positions)] = values
    if kind == "plain":
        return AddAt(torch.from_numpy(positions), values), dense
    where = BlockIndex.of(positions, len(base))
    levels = np.sign(values.numpy()).astype(np.int8)
    return SparseDelta.of_levels(where, levels, np.array([0.5], np.float32)), dense


@settings(max_examples=25, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["signs", "plain", "levels", "replace", "xor"]), min_size=1,
                   max_size=4),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_members_are_summed_in_float32_and_rounded_once(kinds, dtype, seed):
    base = torch.randn(NUMEL, generator=torch.Generator().manual_seed(seed)).to(dtype)
    made = {str(i): some_patch(kind, base, seed + i) for i, kind in enumerate(kinds)}
    weights = {name: 0.3 + 0.1 * i for i, name in enumerate(made)}
    recipe = Recipe({name: (weight,) for name, weight in weights.items()})
    patches = {name: {"w": patch} for name, (patch, _) in made.items()}
    [(name, delta)] = merged(recipe, patches, {"w": NUMEL}, lambda _: base)
    expected = torch.zeros(NUMEL)
    for who, (_, dense) in made.items():
        expected += dense * torch.tensor(weights[who], dtype=torch.float32)
    live = base.clone()
    log = apply_([(live, delta)])
    assert name == "w"
    assert torch.equal(live, (base.float() + expected).to(dtype))
    revert_(log)
    assert torch.equal(live, base)


def test_a_tensor_that_no_member_changes_is_left_out():
    base = torch.zeros(NUMEL)
    patch, _ = some_patch("signs", base, 0)
    found = merged(Recipe({"a": (1.0,)}), {"a": {"x": patch}}, {"x": NUMEL, "y": 3}, lambda _: base)
    assert [name for name, _ in found] == ["x"]


def test_layers_have_weights_of_their_own():
    base = torch.zeros(NUMEL)
    names = ("embeddings.w", "layer.0.w", "layer.1.w")
    patch, dense = some_patch("signs", base, 0)
    recipe = Recipe({"a": (1.0, 2.0, 3.0)})
    patches = {"a": dict.fromkeys(names, patch)}
    found = dict(merged(recipe, patches, dict.fromkeys(names, NUMEL), lambda _: base))
    for name, weight in zip(names, (1.0, 2.0, 3.0), strict=True):
        live = base.clone()
        apply_([(live, found[name])])
        assert torch.equal(live, dense * weight)


@pytest.mark.parametrize(("n_groups", "expected"), [
    (1, [0, 0, 0, 0, 0, 0]), (2, [0, 1, 1, 1, 1, 0]), (3, [0, 1, 1, 2, 2, 0]),
    (5, [0, 1, 2, 3, 4, 0]),
])  # fmt: skip
def test_layers_share_groups_in_order(n_groups, expected):
    names = ["embed.w", *(f"model.layers.{i}.mlp.w" for i in range(4)), "norm.w"]
    assert list(groups(names, n_groups).values()) == expected


@pytest.mark.parametrize(("n_groups", "expected"), [
    (3, [0, 1, 1, 1, 2, 2, 2, 0]), (4, [0, 0, 0, 1, 2, 2, 2, 3]), (6, [0, 1, 1, 2, 3, 3, 4, 5]),
])  # fmt: skip
def test_more_groups_than_layers_are_of_modules(n_groups, expected):
    """A weight and its bias stay together."""
    layers = [
        f"layer.{i}.{name}" for i in range(2) for name in ("q.weight", "q.bias", "mlp.weight")
    ]
    names = ["embed.weight", *layers, "norm.weight"]
    assert list(groups(names, n_groups).values()) == expected
    assert most_groups(names) == 6


@settings(max_examples=10, deadline=None)
@given(drop=st.sampled_from([0.0, 0.3, 0.9]), seed=st.integers(0, MAX_SEED - 1))
def test_dare_keeps_by_seed_member_tensor_and_position(drop, seed):
    """Whatever else is changed, and whichever others are merged."""
    base = torch.zeros(NUMEL)
    patch, dense = some_patch("levels", base, 0)
    few, sparse = some_patch("signs", base, 1)

    def thinned(members, name="w", its_seed=seed):
        recipe = Recipe(
            dict.fromkeys(members, (1.0,)), "dare", {"drop": drop, "seed": float(its_seed)}
        )
        patches = {who: {name: each} for who, each in members.items()}
        [(_, delta)] = merged(recipe, patches, {name: NUMEL}, lambda _: base)
        full = torch.zeros(NUMEL)
        full[delta.index] = delta.added(lambda: base)
        return full

    alone = thinned({"a": patch})
    kept = alone != 0
    changed = dense != 0
    torch.testing.assert_close(alone[kept], dense[kept] / (1 - drop))
    assert float((kept & changed).sum() / changed.sum()) == pytest.approx(1 - drop, abs=0.02)
    assert torch.equal(alone, thinned({"a": patch}))
    both = thinned({"a": patch, "b": few})
    torch.testing.assert_close(both, alone + thinned({"b": few}))
    if drop:
        others = (thinned({"b": patch}), thinned({"a": patch}, "v"),
                  thinned({"a": patch}, its_seed=float(seed ^ 1)))  # fmt: skip
        for other in others:
            agreement = float(((other != 0) == kept)[changed].float().mean())
            assert agreement == pytest.approx(drop**2 + (1 - drop) ** 2, abs=0.02)
    on_few = thinned({"a": few}) != 0
    where = sparse != 0
    assert torch.equal(on_few[where & changed], kept[where & changed])
