from __future__ import annotations

import pytest

from server.errors import OverloadedError
from server.metrics import Metrics
from server.scheduling.admission import Admission


@pytest.fixture
def admission() -> Admission:
    return Admission(max_inputs=10, max_inputs_per_task=6, metrics=Metrics(engine="toy"))


def test_one_task_cannot_fill_the_queue(admission):
    with admission.ticket("a", 6):
        with (
            pytest.raises(OverloadedError, match="6 inputs of this model"),
            admission.ticket("a", 1),
        ):
            pass
        with admission.ticket("b", 4), pytest.raises(OverloadedError), admission.ticket("c", 1):
            pass
    with admission.ticket("a", 6):
        pass


def test_room_comes_back_when_a_request_fails(admission):
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), admission.ticket("a", 6):
            raise ZeroDivisionError


def test_a_request_larger_than_the_limit_is_let_in_when_nothing_waits(admission):
    with admission.ticket("a", 50):
        pass


def test_retry_after_follows_the_pace_of_the_model(admission):
    for _ in range(100):
        admission.observe(30.0, 10)
    with (
        admission.ticket("a", 6),
        pytest.raises(OverloadedError) as refused,
        admission.ticket("a", 6),
    ):
        pass
    assert 10 < refused.value.retry_after_s <= 60
