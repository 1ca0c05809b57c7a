from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nps_store.checkpoint import Checkpoint
from nps_store.compress.fine_tune import FineTune
from nps_store.compress.kinship import Kinship
from tests.nps_store.models import edit, weights


def kinship(zoo, directory, **options):
    return Kinship.of(FineTune("t", Checkpoint(directory), Checkpoint(zoo.base), **options))


def test_change_and_correlation_are_those_of_the_definition(zoo):
    base, own = weights(zoo.base), weights(zoo.dense("five"))
    pairs = [(own[f"bert.{name}"].double(), tensor.double()) for name, tensor in base.items()]
    squares = [(float((x - y).square().sum()), float(y.square().sum())) for x, y in pairs]
    changed, norm = map(sum, zip(*squares, strict=True))
    centred = [(x - x.mean(), y - y.mean()) for x, y in pairs if y.ndim == 2]
    both = [torch.cat([side.reshape(-1) for side in sides]) for sides in zip(*centred, strict=True)]
    made = kinship(zoo, zoo.dense("five"))
    assert made.change == pytest.approx(math.sqrt(changed / norm), rel=1e-4)
    assert made.correlation == pytest.approx(np.corrcoef(*both)[0, 1], rel=1e-4)
    assert not made.is_equal


@pytest.mark.parametrize("size", [1e-30, 1e-3])
def test_one_changed_element_is_no_equality(zoo, tmp_path, size):
    """Its square may be no number that float32 has."""

    def nudge(tensors):
        tensors["pooler.dense.bias"][0] = size

    task = edit(zoo.base, tmp_path / "task", nudge)
    assert not kinship(zoo, task).is_equal
    assert kinship(zoo, zoo.base).is_equal


@pytest.mark.parametrize(
    ("share", "related"), [(0.0, True), (0.3, True), (0.5, True), (1.0, False)]
)
def test_how_much_of_a_stranger_makes_a_stranger(zoo, tmp_path, share, related):
    """Weights of another model mixed in: (1 - share) * base + share * other."""
    torch.manual_seed(7)

    def mix(tensors):
        for tensor in tensors.values():
            tensor.mul_(1 - share).add_(share * 0.3 * torch.randn(tensor.shape))

    made = kinship(zoo, edit(zoo.base, tmp_path / "task", mix))
    assert made.is_related == (share < 1)


def test_weights_that_only_grew_are_still_the_bases(zoo, tmp_path):
    def triple(tensors):
        for tensor in tensors.values():
            tensor.mul_(3)

    made = kinship(zoo, edit(zoo.base, tmp_path / "task", triple))
    assert made.change == pytest.approx(2, rel=1e-5)
    assert made.is_related
