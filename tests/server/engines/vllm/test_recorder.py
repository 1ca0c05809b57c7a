"""The layout is what the model's own loading code does, and asking for it changes nothing."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import nn

from server.errors import UnsafeLayoutError

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.filterwarnings("ignore"),  # of vLLM's own, when it is imported
]

SHAPES = {"a": (3, 4), "b": (2, 4), "unused": (5,)}


class Fused(nn.Module):
    """a and b in one parameter with two rows of padding, as vLLM's loaders do it."""

    def __init__(self, loader=None) -> None:
        super().__init__()
        self.plain = nn.Parameter(torch.zeros(3, 4), requires_grad=False)
        self.fused = nn.Parameter(torch.full((7, 4), 9.0), requires_grad=False)
        self.fused.first_row = {"a": 0, "b": 3}
        self.fused.weight_loader = loader or self.load

    def load(self, parameter, loaded, name):
        first = parameter.first_row[name]
        parameter.data[first : first + len(loaded)].copy_(loaded)
        parameter.data[5:].fill_(0)

    def load_weights(self, weights):
        for name, tensor in weights:
            if name in self.fused.first_row:
                self.fused.weight_loader(self.fused, tensor, name)


def layout_of(model, shapes=SHAPES):
    from server.engines.vllm.recorder import record_layout

    return record_layout(model, shapes)


def test_the_layout_is_found_and_nothing_is_written():
    model = Fused()
    layout = layout_of(model)
    [a], [b] = layout.pieces["a"], layout.pieces["b"]
    assert (a.parameter, a.local.tolist(), a.length.tolist()) == ("fused", [0], [12])
    assert (b.parameter, b.local.tolist(), b.length.tolist()) == ("fused", [12], [8])
    assert layout.pieces["unused"] == ()
    assert bool((model.fused == 9).all())
    assert model.fused.weight_loader == model.load
    assert not hasattr(model.plain, "weight_loader")


def test_the_first_elements_are_not_taken_for_padding():
    model = Fused()
    assert layout_of(model, {"b": (2, 4)}).pieces["b"][0].length.sum() == 8


def test_loaders_come_back_after_a_failure():
    def broken(parameter, loaded, name):
        raise AssertionError("of another shape")

    model = Fused(broken)
    with pytest.raises(UnsafeLayoutError, match=r"'fused' does not take .*of another shape"):
        layout_of(model)
    assert model.fused.weight_loader is broken


def test_a_transposed_parameter_is_refused_by_name():
    def transposed(parameter, loaded, name):
        parameter.data.reshape(-1)[:1024].copy_(loaded.t().reshape(-1))

    model = Fused(transposed)
    model.fused = nn.Parameter(torch.zeros(32, 32), requires_grad=False)
    model.fused.first_row, model.fused.weight_loader = {"a": 0}, transposed
    with pytest.raises(UnsafeLayoutError, match="'fused' is scattered"):
        layout_of(model, {"a": (32, 32)})
