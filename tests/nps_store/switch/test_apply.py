"""Apply and revert change exactly what they say, and nothing stays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nps_store.switch import AddAll, AddAt, Replace, UndoLog, XorAll, apply_, revert_
from nps_store.switch.patch import bits_dtype

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
KINDS = ["add_at", "add_all", "add_rows", "xor", "replace"]
shapes = st.sampled_from([(0,), (1,), (), (7,), (3, 5), (2, 3, 4), (64, 33)])


def bits(tensor):
    return tensor.reshape(-1).view(torch.uint8).clone()


def random_bits(shape, dtype, seed):
    """Any bit pattern: denormals, infinities and NaNs too."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.Size(shape).numel() * dtype.itemsize
    raw = torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(shape)


def some_values(shape, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 0.05).to(dtype)


def make_patch(kind, tensor, seed, density):
    generator = torch.Generator().manual_seed(seed)
    n = tensor.numel()
    match kind:
        case "add_at":
            index = torch.nonzero(torch.rand(n, generator=generator) <= density).reshape(-1)
            return AddAt(index, torch.randn(len(index), generator=generator) * 0.1)
        case "add_all":
            levels = torch.randint(-128, 128, (n,), dtype=torch.int8, generator=generator)
            return AddAll(levels, torch.tensor([0.01]))
        case "add_rows":
            rows = max(1, tensor.shape[0] if tensor.ndim else 1)
            levels = torch.randint(-128, 128, (n,), dtype=torch.int8, generator=generator)
            return AddAll(levels, torch.rand(rows, generator=generator))
        case "xor":
            return XorAll(random_bits((n,), bits_dtype(tensor.element_size()), seed))
        case _:
            return Replace(random_bits((n,), tensor.dtype, seed))


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from(DTYPES),
    shape=shapes,
    seed=st.integers(0, 2**31),
    density=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_revert_restores_every_bit(kind, dtype, shape, seed, density):
    tensor = random_bits(shape, dtype, seed)
    before = bits(tensor)
    log = apply_([(tensor, make_patch(kind, tensor, seed + 1, density))])
    revert_(log)
    assert torch.equal(bits(tensor), before)
    assert log.nbytes == 0


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=shapes,
    seed=st.integers(0, 2**31),
    density=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_add_at_rounds_once_from_float32(dtype, shape, seed, density):
    tensor = some_values(shape, dtype, seed)
    patch = make_patch("add_at", tensor, seed + 1, density)
    expected = tensor.clone().reshape(-1)
    for position, value in zip(patch.index.tolist(), patch.delta, strict=True):
        wide = torch.float64 if dtype is torch.float64 else torch.float32
        total = expected[position].to(wide) + value.to(wide)
        expected[position] = total.to(dtype)
    apply_([(tensor, patch)])
    assert torch.equal(bits(tensor), bits(expected))


@pytest.mark.parametrize("value", [2.0**-9, -(2.0**-9), 3 * 2.0**-9])
def test_ties_round_to_even(value):
    """Halfway between two bfloat16 numbers around one."""
    tensor = torch.ones(4, dtype=torch.bfloat16)
    apply_([(tensor, AddAt(torch.tensor([2]), torch.tensor([value])))])
    assert tensor[2] == torch.tensor(1 + value).to(torch.bfloat16)
    assert tensor[[0, 1, 3]].eq(1).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_all_has_one_scale_or_one_a_row(dtype):
    tensor = some_values((3, 4), dtype, 0)
    levels = torch.arange(-6, 6, dtype=torch.int8)
    for scales in (torch.tensor([0.5]), torch.tensor([0.5, 0.25, 2.0])):
        patched = tensor.clone()
        apply_([(patched, AddAll(levels, scales))])
        rows = scales.expand(3)
        for row in range(3):
            for column in range(4):
                delta = levels[4 * row + column].float() * rows[row]
                wide = torch.float64 if dtype is torch.float64 else torch.float32
                expected = (tensor[row, column].to(wide) + delta.to(wide)).to(dtype)
                assert patched[row, column] == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_xor_and_replace_give_the_tasks_own_bits(dtype):
    base, task = random_bits((5, 3), dtype, 1), random_bits((5, 3), dtype, 2)
    raw = bits_dtype(dtype.itemsize)
    for patch in (
        XorAll(base.reshape(-1).view(raw) ^ task.reshape(-1).view(raw)),
        Replace(task),
    ):
        tensor = base.clone()
        apply_([(tensor, patch)])
        assert torch.equal(bits(tensor), bits(task))
        assert patch.nbytes == tensor.nbytes


@settings(max_examples=25, deadline=None)
@given(dtype=st.sampled_from(DTYPES), seed=st.integers(0, 2**31), n_good=st.integers(0, 4))
def test_a_failure_part_way_leaves_every_bit(dtype, seed, n_good):
    class Broken(AddAt):
        def new_values(self, old):
            raise ZeroDivisionError

    tensors = [random_bits((4, 4), dtype, seed + i) for i in range(n_good + 1)]
    before = [bits(tensor) for tensor in tensors]
    changes = [
        (tensor, make_patch(KINDS[i % len(KINDS)], tensor, seed, 0.5))
        for i, tensor in enumerate(tensors[:-1])
    ]
    empty = torch.empty(0)
    with pytest.raises(ZeroDivisionError):
        apply_([*changes, (tensors[-1], Broken(empty.long(), empty))])
    assert all(torch.equal(bits(t), b) for t, b in zip(tensors, before, strict=True))


@pytest.mark.parametrize(
    "patch",
    [
        AddAt(torch.tensor([1, 9]), torch.zeros(2)),
        AddAt(torch.tensor([0, 1]), torch.zeros(3)),
        AddAll(torch.zeros(5, dtype=torch.int8), torch.ones(1)),
        XorAll(torch.zeros(5, dtype=torch.int32)),
        Replace(torch.zeros(5)),
        Replace(torch.zeros(1)),
        AddAll(torch.ones(1, dtype=torch.int8), torch.ones(1)),
        XorAll(torch.ones(1, dtype=torch.int32)),
        AddAt(torch.tensor([0, 1]), torch.ones(1)),
    ],
)
def test_a_patch_of_another_size_is_refused_and_changes_nothing(patch):
    tensor, other = torch.ones(8), torch.ones(3)
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        apply_([(other, AddAt(torch.tensor([0]), torch.ones(1))), (tensor, patch)])
    assert tensor.eq(1).all()
    assert other.eq(1).all()


def test_an_interrupt_while_changes_are_made_reverts():
    tensor = torch.ones(4)

    def changes():
        yield tensor, Replace(torch.zeros(4))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply_(changes())
    assert tensor.eq(1).all()


def test_a_view_that_cannot_be_flattened_is_refused():
    tensor = torch.ones(4, 6).t()
    with pytest.raises(RuntimeError):
        apply_([(tensor, Replace(torch.zeros(24)))])
    assert tensor.eq(1).all()


def test_the_log_counts_its_bytes():
    tensor = torch.ones(100, dtype=torch.bfloat16)
    log = apply_([(tensor, AddAt(torch.arange(10), torch.ones(10)))])
    assert log.nbytes == 20
    revert_(log)
    assert revert_(UndoLog()) is None


def test_two_hundred_random_switches_leave_the_base():
    base = random_bits((50, 20), torch.bfloat16, 0)
    before = bits(base)
    log = UndoLog()
    for seed in range(200):
        revert_(log)
        assert torch.equal(bits(base), before)
        log = apply_([(base, make_patch(KINDS[seed % len(KINDS)], base, seed, 0.05))])
    revert_(log)
    assert torch.equal(bits(base), before)
