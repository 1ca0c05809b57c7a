from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from server.residency.resident import Resident
from server.scheduling.fair_queue import FairQueue
from server.scheduling.job import Job
from tests.server.toy import ToyTask


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make(
    *, quantum_s: float = 0.05, inputs: int = 4, tokens: int = 1000
) -> tuple[FairQueue, FakeClock]:
    clock = FakeClock()
    queue = FairQueue(
        quantum_s=quantum_s, max_batch_inputs=inputs, max_batch_tokens=tokens, clock=clock
    )
    return queue, clock


def job(task: Resident, *lengths: int) -> Job:
    return Job(task, ToyTask(task.task, "", 0.0), [[1] * n for n in lengths])


def test_a_batch_holds_one_task_in_order_of_arrival():
    queue, _ = make()
    a, b = Resident("a", ""), Resident("b", "")
    jobs = [job(a, 1, 1), job(b, 1), job(a, 1, 1, 1)]
    for one in jobs:
        queue.push(one)
    batch = queue.pop()
    assert batch is not None
    assert batch.items == ((jobs[0], 0), (jobs[0], 1), (jobs[2], 0), (jobs[2], 1))
    assert batch.jobs == [jobs[0], jobs[2]]


def test_padding_counts_towards_the_token_limit():
    queue, _ = make(inputs=10, tokens=10)
    a = Resident("a", "")
    queue.push(job(a, 2, 2, 5, 1, 30, 1))
    sizes = []
    while (batch := queue.pop()) is not None:
        sizes.append([len(ids) for ids in batch.inputs])
    # 2+2 fit; 5 would make it 3 x 5. An input alone may exceed the limit, never in company.
    assert sizes == [[2, 2], [5, 1], [30], [1]]


def test_a_task_alone_keeps_the_model():
    queue, clock = make(quantum_s=0.01, inputs=1)
    a = Resident("a", "")
    queue.push(job(a, *[1] * 5))
    for _ in range(5):
        batch = queue.pop()
        assert batch is not None
        assert batch.resident is a
        clock.now += 1.0
    assert queue.pop() is None


@pytest.mark.parametrize(("batch_s", "n_batches"), [(0.02, 2), (0.04, 1), (0.3, 1), (0.0, 6)])
def test_a_turn_ends_before_the_batch_that_would_exceed_the_quantum(batch_s, n_batches):
    queue, clock = make(quantum_s=0.05, inputs=1)
    tasks = [Resident(name, "") for name in "abc"]
    for task in tasks:
        queue.push(job(task, *[1] * 6))
    order = []
    while len(order) < 3 * n_batches:
        batch = queue.pop()
        assert batch is not None
        order.append(batch.resident.task)
        clock.now += batch_s
    assert order == [name for name in "abc" for _ in range(n_batches)]


def test_discard_removes_only_what_has_not_started():
    queue, _ = make(inputs=2)
    a = Resident("a", "")
    first, second = job(a, 1, 1, 1), job(a, 1)
    queue.push(first)
    queue.push(second)
    queue.pop()
    queue.discard(first)
    batch = queue.pop()
    assert batch is not None
    assert batch.items == ((second, 0),)
    queue.discard(second)
    assert queue.pop() is None


def test_time_spent_waiting_is_no_batch():
    queue, clock = make(quantum_s=0.05, inputs=1)
    a, b = Resident("a", ""), Resident("b", "")
    queue.push(job(a, 1))
    queue.pop()
    clock.now += 0.01
    assert queue.pop() is None
    queue.idle()
    clock.now += 100.0
    queue.push(job(a, 1, 1))
    queue.push(job(b, 1))
    order = []
    while (batch := queue.pop()) is not None:
        order.append(batch.resident.task)
        clock.now += 0.02
    assert order == ["a", "a", "b"]


@settings(max_examples=60, deadline=None)
@given(
    n_tasks=st.integers(2, 6),
    quantum_ms=st.integers(5, 100),
    batch_ms=st.lists(st.integers(1, 100), min_size=6, max_size=6),
    late=st.integers(0, 400),
)
def test_a_waiting_task_waits_at_most_its_turn_plus_one_batch(n_tasks, quantum_ms, batch_ms, late):
    """All tasks but one are saturated; the last one arrives at an arbitrary moment."""
    queue, clock = make(quantum_s=quantum_ms / 1000, inputs=1)
    busy = [Resident(f"t{i}", "") for i in range(n_tasks - 1)]
    latecomer = Resident("late", "")
    seconds = {task: batch_ms[i] / 1000 for i, task in enumerate(busy)}
    for task in busy:
        queue.push(job(task, *[1] * 3000))
    arrived_at = None
    while True:
        if arrived_at is None and clock.now * 1000 >= late:
            arrived_at = clock.now
            queue.push(job(latecomer, 1))
        batch = queue.pop()
        assert batch is not None
        if batch.resident is latecomer:
            break
        clock.now += seconds[batch.resident]
    assert arrived_at is not None
    # A turn is a quantum, or one batch where that is longer.
    turns = sum(max(quantum_ms / 1000, seconds[task]) for task in busy)
    assert clock.now - arrived_at <= turns + max(seconds.values()) + 1e-9
