"""What is in place is one task's or the base's, whatever fails."""

from __future__ import annotations

import threading

import pytest
import torch

from nps_store.errors import WeightsUnsettledError
from nps_store.switch import Replace, ResidentTask, Targets
from nps_store.switch.in_place import InPlace

CPU = torch.device("cpu")


def task_of(tensor, value):
    return ResidentTask.of(Targets([tensor]), [(tensor, Replace(torch.full_like(tensor, value)))])


class Failing(Replace):
    """A patch that cannot be computed."""

    def to(self, device):
        return self

    def new_values(self, old):
        raise MemoryError


def test_a_failed_switch_leaves_the_base():
    first, second = torch.zeros(3), torch.zeros(3)
    weights = InPlace(CPU)
    weights.to_("a", task_of(first, 1))
    pairs = [(first, Replace(torch.ones(3) * 2)), (second, Failing(torch.ones(3)))]
    failing = ResidentTask.of(Targets([first, second]), pairs)
    with pytest.raises(MemoryError):
        weights.to_("b", failing)
    assert weights.current is None
    assert first.eq(0).all()
    assert second.eq(0).all()


def test_a_failed_revert_refuses_to_serve_until_it_succeeds(monkeypatch):
    tensor = torch.zeros(3)
    weights = InPlace(CPU)
    weights.to_("a", task_of(tensor, 1))
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "copy_", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            weights.to_("b", task_of(tensor, 2))
    with pytest.raises(WeightsUnsettledError):
        _ = weights.current
    with pytest.raises(WeightsUnsettledError), weights.hold():
        pass
    assert not weights.has("a")
    weights.to_(None, None)
    assert weights.current is None
    assert tensor.eq(0).all()


def test_what_is_held_is_not_switched():
    tensor = torch.zeros(3)
    weights = InPlace(CPU)
    weights.to_("a", task_of(tensor, 1))
    with weights.hold() as current:
        assert current == "a"
        with pytest.raises(RuntimeError, match="held"):
            weights.to_("b", task_of(tensor, 2))
        thread = threading.Thread(target=weights.to_, args=("b", task_of(tensor, 2)))
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        assert tensor.eq(1).all()
    thread.join()
    assert weights.current == "b"
    assert tensor.eq(2).all()
