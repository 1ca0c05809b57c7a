"""Resident tasks put in place exactly what the reference does, whatever path they take."""

from __future__ import annotations

import subprocess
import sys
import threading
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nps_store.switch import (
    AddAll,
    AddAt,
    BlockIndex,
    Replace,
    ResidentTask,
    SparseDelta,
    Targets,
    UndoLog,
    apply_,
    cpu_loop,
    gpu_loop,
    resident,
    revert_,
    switch_,
    written,
)
from nps_store.switch.patch import bits_dtype

pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
"""Sums beyond float16's range are infinite on every path; Triton's interpreter remarks on it."""

MIN_ENTRIES = resident.MIN_ENTRIES
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
KINDS = ["signs", "levels", "rows", "bfloat16", "float32"]
SIZES = [0, 1, 7, 8, 9, 65535, 65536, 65537, 200_000]
cases = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(DTYPES),
        "kind": st.sampled_from(KINDS),
        "size": st.sampled_from(SIZES),
        "density": st.sampled_from([0.0, 0.001, 0.1, 1.0]),
        "seed": st.integers(0, 2**31),
    }
)


@pytest.fixture(autouse=True, params=["compiled", "triton", "torch"])
def path(request, monkeypatch):
    """Every test runs on every path; Triton interprets its loop where there is no GPU."""
    monkeypatch.setattr(resident, "MIN_ENTRIES", 0)
    if request.param == "torch":
        monkeypatch.setattr(cpu_loop, "is_available", lambda: False)
    if request.param == "triton":
        if find_spec("triton") is None or torch.cuda.is_available():
            pytest.skip("needs Triton, and no GPU, which would keep it from interpreting")
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        monkeypatch.setattr(gpu_loop, "PREFETCH", False)  # the interpreter knows no assembler
        monkeypatch.setattr(written, "_loop", lambda _group: gpu_loop)
    return request.param


def bits(tensor):
    return tensor.reshape(-1).clone().view(bits_dtype(tensor.element_size()))


def any_weights(size, dtype, seed):
    """Any bits but those of NaN, of which torch has several: subnormal, infinite, -0."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 1 << 8 * dtype.itemsize - 1, size, np.int64)
    weights = torch.from_numpy(raw).to(bits_dtype(dtype.itemsize)).view(dtype)
    weights = torch.where(torch.from_numpy(rng.random(size) < 0.5), weights, -weights)
    usual = torch.from_numpy(rng.standard_normal(size) * 0.02).to(dtype)
    is_odd = torch.from_numpy(rng.random(size) < 0.3)
    return torch.where(is_odd & ~weights.isnan(), weights, usual)


def some_delta(kind, size, density, seed):
    """A sparse delta, and the same as index and float32 values."""
    rng = np.random.default_rng(seed)
    positions = np.flatnonzero(rng.random(size) < density).astype(np.int64)
    where = BlockIndex.of(positions, size)
    if kind in {"bfloat16", "float32"}:
        values = torch.from_numpy(rng.standard_normal(positions.size)).to(getattr(torch, kind))
        return SparseDelta.of_values(where, values), values.float()
    allowed = [-1, 1] if kind == "signs" else [-128, -2, -1, 1, 127]
    levels = rng.choice(np.array(allowed, np.int8), positions.size)
    n_rows = 4 if kind == "rows" and size and size % 4 == 0 else 1
    scales = (rng.random(n_rows) * 10.0 ** rng.integers(-8, 3)).astype(np.float32)
    delta = levels.astype(np.float32) * scales[positions // max(1, size // n_rows)]
    return SparseDelta.of_levels(where, levels, scales), torch.from_numpy(delta)


@settings(max_examples=80, deadline=None)
@given(case=cases, other=st.sampled_from(KINDS))
def test_a_task_equals_plain_indexing_bit_for_bit(case, other):
    base = any_weights(case["size"], case["dtype"], case["seed"])
    live, log = base.clone(), UndoLog()
    model = Targets([live])
    for number, kind in enumerate((case["kind"], other, case["kind"])):
        patch, delta = some_delta(kind, case["size"], case["density"], case["seed"] + number)
        expected = base.clone()
        apply_([(expected, AddAt(patch.where.positions(), delta))])
        assert torch.equal(bits(patch.delta()), bits(delta))
        switch_(log, ResidentTask.of(model, [(live, patch)]))
        assert torch.equal(bits(live), bits(expected))
    revert_(log)
    assert torch.equal(bits(live), bits(base))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), n_switches=st.integers(1, 8))
def test_switches_among_tasks_of_many_tensors_leave_the_base(seed, n_switches):
    """Other tensors, dtypes, patches and views from task to task."""
    rng = np.random.default_rng(seed)
    base = [any_weights(size, dtype, seed) for size in (6, 70_000, 65_536) for dtype in DTYPES]
    live, log = [tensor.clone() for tensor in base], UndoLog()
    model = Targets(live)
    for number in range(n_switches):
        expected = [tensor.clone() for tensor in base]
        pairs = []
        for tensor, wanted in zip(live, expected, strict=True):
            size = tensor.numel() - int(rng.integers(0, 2)) * 3  # rows of a grown vocabulary
            patch = [
                None,
                some_delta("signs", size, 0.05, seed + number)[0],
                AddAll(torch.ones(size, dtype=torch.int8), torch.tensor([0.5])),
                Replace(tensor[:size].flip(0)),
            ][rng.integers(0, 4)]
            if patch is not None:
                apply_([(wanted[:size], patch)])
                pairs.append((tensor[:size], patch))
        if number % 3:
            revert_(log)
            apply_(ResidentTask.of(model, pairs), log=log)
        else:
            revert_(log) if any(isinstance(p, Replace) for _, p in pairs) else None
            switch_(log, ResidentTask.of(model, pairs))
        for tensor, wanted in zip(live, expected, strict=True):
            assert torch.equal(bits(tensor), bits(wanted))
    revert_(log)
    assert all(torch.equal(bits(a), bits(b)) for a, b in zip(live, base, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_nan_and_reverts_exactly(dtype):
    raw = np.random.default_rng(0).integers(0, 256, 4096 * dtype.itemsize, np.uint8)
    base = torch.from_numpy(raw).view(dtype)
    base[::2] = float("nan")
    live = base.clone()
    patch, delta = some_delta("signs", live.numel(), 1.0, 1)
    expected = base.clone()
    apply_([(expected, AddAt(patch.index, delta))])
    log = apply_(ResidentTask.of(Targets([live]), [(live, patch)]))
    assert torch.equal(live.isnan(), expected.isnan())
    kept = ~live.isnan()
    assert torch.equal(live[kept], expected[kept])
    revert_(log)
    assert torch.equal(bits(live), bits(base))


@settings(max_examples=20, deadline=None)
@given(size=st.sampled_from(SIZES), density=st.sampled_from([0.0, 0.01, 1.0]))
def test_block_index_gives_the_positions_back(size, density):
    positions = np.flatnonzero(np.random.default_rng(0).random(size) < density).astype(np.int64)
    index = BlockIndex.of(positions, size)
    assert index.positions().tolist() == positions.tolist()
    assert index.nbytes == 2 * positions.size + 8 * (-(-size // 65536) + 1)


def test_signs_take_little_more_than_two_bytes_an_entry():
    patch, _ = some_delta("signs", 1 << 20, 0.01, 0)
    assert patch.nbytes < 2.2 * len(patch.where)


def test_a_failure_after_the_compiled_part_leaves_every_bit():
    class Broken(Replace):
        def to(self, device):
            return self

        def new_values(self, old):
            raise KeyboardInterrupt

    base = any_weights(70_000, torch.bfloat16, 0)
    live, last, log = base.clone(), torch.ones(3), UndoLog()
    good, bad = some_delta("signs", 70_000, 0.1, 0)[0], Broken(torch.zeros(3))
    model = Targets([live, last])
    switch_(log, ResidentTask.of(model, [(live, good)]))
    with pytest.raises(KeyboardInterrupt):
        switch_(log, ResidentTask.of(model, [(live, good), (last, bad)]))
    assert torch.equal(bits(live), bits(base))
    assert not log.entries


def test_a_patch_for_another_size_is_refused():
    patch = some_delta("signs", 100, 0.5, 0)[0]
    with pytest.raises(ValueError, match="patch of 100 elements for 99"):
        ResidentTask.of(Targets(()), [(torch.ones(99), patch)])


def test_a_view_that_is_not_contiguous_is_refused():
    base = torch.ones(6, 4).t()
    patch = some_delta("signs", 24, 0.5, 0)[0]
    with pytest.raises(RuntimeError):
        apply_(ResidentTask.of(Targets([base]), [(base, patch)]))
    assert base.eq(1).all()


def test_large_tasks_are_compiled_and_small_ones_are_not(monkeypatch, path):
    monkeypatch.setattr(resident, "MIN_ENTRIES", MIN_ENTRIES)
    small, large = (some_delta("signs", 200_000, d, 0)[0] for d in (0.01, 0.5))
    live = torch.ones(200_000)
    model = Targets([live])
    assert not ResidentTask.of(model, [(live, small)]).packed
    assert bool(ResidentTask.of(model, [(live, large)]).packed) == (path != "torch")


def test_dense_tasks_are_restored_from_a_copy_that_is_made_once(path):
    """Whatever was in place before: the copy is the base's, never a task's."""
    base = any_weights(200_001, torch.bfloat16, 0)
    live, log = base.clone(), UndoLog(keeps_copies=True)
    patches = [some_delta("signs", 200_001, d, i)[0] for i, d in enumerate((0.01, 0.3, 0.5, 0.02))]
    model = Targets([live])
    tasks = [ResidentTask.of(model, [(live, patch)]) for patch in patches]
    for number in (0, 1, 2, 1, 0, 3, 2, 0):
        expected = base.clone()
        apply_([(expected, patches[number])])
        switch_(log, tasks[number])
        assert torch.equal(bits(live), bits(expected))
        assert log.copies.nbytes in ({0, base.nbytes} if path != "torch" else {0})
        if number in {1, 2} and path != "torch":
            assert log.nbytes == 0
            assert log.copies.nbytes == base.nbytes
    revert_(log)
    assert torch.equal(bits(live), bits(base))


def test_an_application_needs_an_empty_log():
    live = torch.ones(3)
    log = apply_([(live, Replace(torch.zeros(3)))])
    assert log.copies.nbytes == 12
    with pytest.raises(ValueError, match="holds another"):
        apply_([(live, Replace(torch.zeros(3)))], log=log)
    revert_(log)
    assert log.copies.nbytes == 0
    assert live.eq(1).all()


def test_tasks_on_several_threads_do_not_meet(path):
    """Each thread has weights of its own; the loop itself is one for all."""
    if path == "triton":
        pytest.skip("Triton's interpreter is for one thread")
    bases = [any_weights(300_000, torch.float32, seed) for seed in range(4)]
    patches = [some_delta("signs", 300_000, 0.1, seed)[0] for seed in range(2)]
    wrong = []

    def work(base):
        live, log = base.clone(), UndoLog()
        model = Targets([live])
        tasks = [ResidentTask.of(model, [(live, patch)]) for patch in patches]
        for number in range(50):
            switch_(log, tasks[number % 2])
        revert_(log)
        if not torch.equal(bits(live), bits(base)):
            wrong.append(base)

    threads = [threading.Thread(target=work, args=(base,)) for base in bases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(find_spec("numba") is None, reason="needs numba")
def test_the_first_switch_leaves_torchs_threads_alone():
    """In a process of its own: only the first one starts numba's threads."""
    code = (
        "import torch; from nps_store.selftest.switching import compiled_is_exact\n"
        "torch.set_num_threads(1); compiled_is_exact(); assert torch.get_num_threads() == 1\n"
        "torch.set_num_threads(2); compiled_is_exact(); assert torch.get_num_threads() == 2\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
