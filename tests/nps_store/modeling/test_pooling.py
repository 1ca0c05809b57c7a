"""Pooling is what the model's files ask for, or refused: a wrong mean would go unnoticed."""

from __future__ import annotations

import json

import pytest
import torch

from nps_store.errors import UnsupportedTaskError
from nps_store.modeling.shell import Pooling

HIDDEN = torch.tensor([[[1.0, -2.0], [3.0, 4.0], [9.0, 9.0]]])
MASK = torch.tensor([[1, 1, 0]])


def module(kind, path="x"):
    return {"type": f"sentence_transformers.models.{kind}", "path": path}


def pooling(*modules, config=None):
    files = {"modules.json": modules, "x/config.json": config or {}}
    return Pooling.from_files(lambda name: json.dumps(files[name]).encode())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_mean_tokens": True}, [2.0, 1.0]),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, [1.0, -2.0]),
        ({"pooling_mode_max_tokens": True}, [3.0, 4.0]),
        ({"pooling_mode": "cls"}, [1.0, -2.0]),
        ({}, [2.0, 1.0]),
    ],
)
def test_modes(config, expected):
    made = pooling(module("Transformer"), module("Pooling"), config=config)
    assert made(HIDDEN, MASK).tolist() == [expected]
    assert not made.normalize


def test_normalize():
    made = pooling(module("Pooling"), module("Normalize"), config={"pooling_mode": "mean"})
    assert made(HIDDEN, MASK).norm().item() == pytest.approx(1)


def test_no_files_mean_the_mean():
    assert Pooling.from_files(lambda name: None)(HIDDEN, MASK).tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode_lasttoken": True},
        {"pooling_mode_weightedmean_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        {"pooling_mode": "lasttoken"},
        {"pooling_mode": ["mean", "cls"]},
    ],
)
def test_what_is_not_known_is_refused_by_name(config):
    with pytest.raises(UnsupportedTaskError, match="pooling"):
        pooling(module("Pooling"), config=config)


def test_a_module_that_would_be_left_out_is_refused():
    with pytest.raises(UnsupportedTaskError, match="'Dense'"):
        pooling(module("Transformer"), module("Pooling"), module("Dense"))
