"""The GPU's loop equals the reference, and what lies in pinned memory comes back the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nps_store.switch import ResidentTask, Targets, UndoLog, apply_, resident, revert_, switch_
from nps_store.switch.cache import PreparedTasks
from tests.nps_store.switch.test_resident import DTYPES, KINDS, any_weights, bits, some_delta

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

SIZES = (6, 65_536, 70_000, 400_000)


@pytest.fixture(autouse=True)
def _everything_is_packed(monkeypatch):
    monkeypatch.setattr(resident, "MIN_ENTRIES", 0)


@pytest.mark.parametrize("density", [0.0, 0.0005, 0.02, 0.3])
def test_switches_equal_plain_indexing_bit_for_bit(density):
    base = [any_weights(size, dtype, size).cuda() for size in SIZES for dtype in DTYPES]
    live, log = [tensor.clone() for tensor in base], UndoLog(keeps_copies=True)
    model, order = Targets(live), np.random.default_rng(0)
    for number in range(12):
        expected, pairs = [tensor.clone() for tensor in base], []
        for tensor, wanted in zip(live, expected, strict=True):
            if order.random() < 0.8:
                kind = KINDS[order.integers(len(KINDS))]
                patch, _ = some_delta(kind, tensor.numel(), density, number)
                apply_([(wanted, patch.to("cuda"))])
                pairs.append((tensor, patch))
        task = ResidentTask.of(model, pairs)
        switch_(log, task.pinned().resident() if number % 2 else task)
        for tensor, wanted in zip(live, expected, strict=True):
            assert torch.equal(bits(tensor), bits(wanted))
    revert_(log)
    assert all(torch.equal(bits(a), bits(b)) for a, b in zip(live, base, strict=True))


def test_what_was_given_up_on_the_gpu_comes_back_from_the_host():
    live = torch.zeros(1 << 20, device="cuda")
    model = Targets([live])
    patches = {name: some_delta("signs", live.numel(), 0.01, ord(name))[0] for name in "ab"}
    cache = PreparedTasks(live.device, max_nbytes=0, max_host_nbytes=1 << 20)
    for name in "abab":
        load = lambda name=name: ResidentTask.of(model, [(live, patches[name])])  # noqa: E731
        future, is_there = cache.get((name, 0), load)
        log = apply_(future.result().resident)
        expected = torch.zeros(1 << 20)
        apply_([(expected, patches[name])])
        assert torch.equal(live.cpu(), expected)
        revert_(log)
        assert not is_there
        cache.make_room(lambda _: False)
    assert (cache.n_prepared, cache.n_uploaded, cache.n_evicted) == (2, 2, 3)
    assert cache.host_nbytes > cache.nbytes > 0
    cache.close()
