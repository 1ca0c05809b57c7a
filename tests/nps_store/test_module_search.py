"""The search on modules of the user's own: what he measures decides, and the base is left alone."""

from __future__ import annotations

import copy
import doctest

import pytest
import torch
from torch import nn

import nps_store.module_search as tested
from nps_store import search_module
from nps_store.errors import BadOptionError, NonFiniteObjectiveError, ShapeMismatchError
from nps_store.switch import revert_
from tests.nps_store.models import same


class Network(nn.Module):
    """With everything that a state dict may hold: weights, running means, a counter, a tie."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 64)
        self.norm = nn.BatchNorm1d(64)
        self.last = nn.Linear(64, 6, bias=False)
        self.again = self.last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.again(self.norm(self.first(x)).relu())


def data(seed):
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(seed))
    return x, x.roll(1, dims=1).square()


def train(model, steps, *, seed):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    x, y = data(seed)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    base = train(Network(), 3, seed=0)
    return base, train(copy.deepcopy(base), 80, seed=1).state_dict()


@torch.no_grad()
def objective(model):
    x, y = data(1)
    return (model(x) - y).square().mean()


@torch.no_grad()
def check(model):
    x, y = data(2)
    return float((model(x) - y).square().mean())


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def gain_kept(base, fine_tuned, made, measured):
    dense = Network().eval()
    dense.load_state_dict(fine_tuned)
    at_base, at_dense = float(measured(base)), float(measured(dense))
    log = made.apply_(base)
    at_made = float(measured(base))
    revert_(log)
    return (at_base - at_made) / (at_base - at_dense)


def test_documented_example_runs():
    result = doctest.testmod(tested)
    assert (result.failed, result.attempted > 4) == (0, True)


def test_a_target_is_met_and_the_module_left_as_it_was(pair):
    base, fine_tuned = pair
    before = state(base)
    made = search_module(base, fine_tuned, objective, check=check, target=0.5, evaluations=20)
    assert same(state(base), before)
    assert made.gain_kept >= 0.5
    assert 0 < made.keep < 1
    assert made.gain_kept == pytest.approx(gain_kept(base, fine_tuned, made, check))
    assert same(state(base), before)
    assert not {"last.weight", "again.weight"} <= made.patches.keys()  # one tensor, one change
    assert "norm.num_batches_tracked" in made.patches


def test_a_target_out_of_reach_keeps_everything(pair):
    base, fine_tuned = pair
    made = search_module(base, fine_tuned, objective, target=1.0, evaluations=2)
    assert (made.keep, made.gain_kept) == (1, 1)
    log = made.apply_(base)
    assert same(state(base), fine_tuned)
    revert_(log)


def test_equal_calls_find_the_same(pair):
    first, second = (
        search_module(*pair, objective, keep=0.2, evaluations=6, seed=3) for _ in range(2)
    )
    assert first.gain_kept == second.gain_kept
    assert first.keep == pytest.approx(0.2, abs=0.01)
    assert first.n_evaluations <= 3 * 6 + 10


def test_the_search_beats_no_search(pair):
    searched = search_module(*pair, objective, keep=0.1, evaluations=30)
    plain = search_module(*pair, objective, keep=0.1, method="dither")
    assert searched.gain_kept > plain.gain_kept


def test_a_failing_objective_leaves_the_module_as_it_was(pair):
    base, fine_tuned = pair
    before, calls = state(base), []

    def fails(model):
        calls.append(model)
        if len(calls) > 6:
            raise KeyError("mine")
        return objective(model)

    with pytest.raises(KeyError, match="mine"):
        search_module(base, fine_tuned, fails, keep=0.2)
    assert same(state(base), before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_objective_without_a_value_is_refused(pair, value):
    with pytest.raises(NonFiniteObjectiveError, match="finite"):
        search_module(*pair, lambda model: value, keep=0.2)


def test_other_tensors_are_refused_by_name(pair):
    base, fine_tuned = pair
    for broken in (
        {**fine_tuned, "first.bias": torch.zeros(3)},
        {name: tensor for name, tensor in fine_tuned.items() if name != "first.bias"},
        {**fine_tuned, "first.biases": torch.zeros(64)},
    ):
        with pytest.raises(ShapeMismatchError, match=r"first\.bias"):
            search_module(base, broken, objective)


def test_arguments_out_of_range_are_refused(pair):
    for arguments in ({"keep": 0.0}, {"target": 1.5}, {"method": "luck"}):
        with pytest.raises(BadOptionError, match=next(iter(arguments))):
            search_module(*pair, objective, **arguments)
    conv = nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last)
    with pytest.raises(BadOptionError, match="contiguous"):
        search_module(conv, conv.state_dict(), lambda m: 0.0)
