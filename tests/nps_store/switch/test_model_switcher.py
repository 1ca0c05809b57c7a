"""Switching among tasks by keys of the user's own."""

from __future__ import annotations

import pytest
import torch

from nps_store.switch import Replace
from nps_store.switch.model_switcher import ModelSwitcher

TASK_NBYTES = 4 * 8


@pytest.fixture
def made():
    """A tensor of zeros, tasks that fill it with their number, and who was asked for."""
    tensor, asked = torch.zeros(8), []

    def changes(number):
        asked.append(number)
        if number < 0:
            raise ValueError("no such number")
        yield tensor, Replace(torch.full((8,), float(number)))

    switcher = ModelSwitcher([tensor], changes, max_nbytes=2 * TASK_NBYTES, max_host_nbytes=0)
    yield switcher, tensor, asked
    switcher.close()


def test_there_and_back(made):
    switcher, tensor, _ = made
    for number in (3, 5, 3):
        switcher.switch_(number)
        assert switcher.current == number
        assert bool((tensor == number).all())
    switcher.switch_(None)
    assert switcher.current is None
    assert bool((tensor == 0).all())


def test_what_fails_leaves_what_was_there_and_is_tried_again(made):
    switcher, tensor, asked = made
    switcher.switch_(3)
    for _ in range(2):
        with pytest.raises(ValueError, match="no such number"):
            switcher.switch_(-1)
    assert asked.count(-1) == 2
    assert bool((tensor == 3).all())


def test_a_pinned_task_stays_prepared(made):
    switcher, _, asked = made
    switcher.pin(1)
    for number in (1, 2, 3, 4, 1):
        switcher.switch_(number)
    assert asked.count(1) == 1
    assert switcher.prepared_nbytes(1) == TASK_NBYTES
    switcher.pin(1, is_pinned=False)
    for number in (2, 3, 4, 1):
        switcher.switch_(number)
    assert asked.count(1) == 2


def test_what_is_not_wanted_any_more_is_forgotten(made):
    switcher, _, asked = made
    switcher.switch_(1)
    switcher.switch_(2)
    switcher.keep(lambda number: number != 1)
    assert switcher.prepared_nbytes(1) is None
    assert switcher.prepared_nbytes(2) == TASK_NBYTES
    switcher.switch_(1)
    assert asked == [1, 2, 1]
