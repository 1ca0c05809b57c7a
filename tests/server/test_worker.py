from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.errors import EngineFailedError, NotReadyError
from server.metrics import Metrics
from server.residency.resident import Resident, State
from server.scheduling.fair_queue import FairQueue
from server.scheduling.job import Job
from server.scheduling.worker import Worker
from tests.server.conftest import wait_until
from tests.server.toy import ToyEngine

if TYPE_CHECKING:
    from collections.abc import Iterator


class Bench:
    """A running worker over the toy engine."""

    def __init__(self, engine: ToyEngine) -> None:
        self.engine = engine
        self.n_batches = 0
        self.fault: Exception | None = None
        self.worker = Worker(
            engine,
            queue=FairQueue(
                quantum_s=0.05, max_batch_inputs=4, max_batch_tokens=100, clock=lambda: 0.0
            ),
            metrics=Metrics(engine="toy"),
            on_batch=self.count,
            on_unusable=lambda resident, error: None,
        )
        self.worker.start()

    def count(self, seconds: float, n_inputs: int) -> None:
        self.n_batches += 1
        if self.fault is not None:
            raise self.fault

    def job(self, name: str, n_inputs: int = 1) -> Job:
        resident = Resident(name, "", state=State.LOADING)
        resident.become_ready(self.engine.prepare(name))
        return Job(resident, resident.prepared, [[i + 1] for i in range(n_inputs)])


@pytest.fixture
def bench(toy) -> Iterator[Bench]:
    made = Bench(toy)
    yield made
    toy.gate.set()
    made.worker.stop()


def test_a_large_request_is_answered_over_several_batches_in_order(bench):
    job = bench.job("role", 10)
    bench.worker.submit(job)
    rows = job.future.result(10)
    expected = ToyEngine.answers(bench.engine.weights, job.inputs, n_labels=2)
    assert (rows == expected).all()
    assert bench.n_batches == 3


def test_a_version_may_leave_memory_while_the_batch_of_a_client_that_went_is_about_to_run(bench):
    job = bench.job("role")
    job.resident.retire()  # the lease is given back and the version dropped before the batch starts
    assert job.resident.state is State.ABSENT
    bench.worker.submit(job)
    assert job.future.result(10).shape == (1, 2)


def test_what_a_client_that_went_had_not_started_is_not_run(bench):
    bench.engine.gate.clear()
    running, large = bench.job("section"), bench.job("role", 10)
    bench.worker.submit(running)
    wait_until(lambda: len(bench.engine.batches) == 1)
    bench.worker.submit(large)
    large.future.cancel()
    bench.engine.gate.set()
    running.future.result(10)
    last = bench.job("section")
    bench.worker.submit(last)
    last.future.result(10)
    assert [name for name, _ in bench.engine.batches] == ["section", "section"]


def test_a_fault_of_the_worker_itself_takes_it_out_of_service_and_not_away(bench):
    bench.fault = ZeroDivisionError("a bug")
    bench.worker.submit(bench.job("role"))
    wait_until(lambda: bench.worker.broken is not None)
    with pytest.raises(NotReadyError, match="a bug"):
        bench.worker.submit(bench.job("role"))


def test_stopping_fails_what_waits(bench):
    bench.engine.gate.clear()
    running, waiting = bench.job("section"), bench.job("role")
    bench.worker.submit(running)
    wait_until(lambda: len(bench.engine.batches) == 1)
    bench.worker.submit(waiting)
    from threading import Timer

    Timer(0.05, bench.engine.gate.set).start()
    bench.worker.stop()
    assert running.future.result(0).shape == (1, 3)
    with pytest.raises(NotReadyError, match="shutting down"):
        waiting.future.result(0)
    with pytest.raises(NotReadyError, match="shutting down"):
        bench.worker.submit(bench.job("role"))


def test_rows_of_the_wrong_number_are_an_engine_failure(bench, monkeypatch):
    answers = bench.engine.run
    monkeypatch.setattr(bench.engine, "run", lambda *a: answers(*a)[:-1])
    job = bench.job("role", 2)
    bench.worker.submit(job)
    with pytest.raises(EngineFailedError, match=r"expected \[2, width\], got \[1, 2\]"):
        job.future.result(10)
