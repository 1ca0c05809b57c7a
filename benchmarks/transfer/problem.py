"""What a transfer method is given: one task's problem, and what of the base is to be kept."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.quality.held_out import HeldOut

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.methods.layout import Layout
    from benchmarks.methods.problem import Problem
    from benchmarks.transfer.retrieval import Found, Retrieval

KEEP = 0.1
"""Share of the parameters that may change."""


@dataclass(frozen=True)
class Balance:
    """Both sides of one vector.

    Attributes:
        accuracy: On the task.
        found: What the body does of the base's retrieval.
        task_kept: Accuracy over the dense fine-tune's.
        base_kept: Mean reciprocal rank over the base's.
    """

    accuracy: float
    found: Found
    task_kept: float
    base_kept: float

    @property
    def average(self) -> float:
        """Arithmetic mean of what is kept."""
        return statistics.fmean((self.task_kept, self.base_kept))

    @property
    def h_score(self) -> float:
        """Harmonic mean of what is kept."""
        return statistics.harmonic_mean((max(self.task_kept, 0), max(self.base_kept, 0)))


class Sides:
    """Data of both sides of one split."""

    def __init__(self, problem: Problem, task: HeldOut, retrieval: Retrieval) -> None:
        """Take the references' figures once.

        Args:
            problem: Gives base and head.
            task: The task's side.
            retrieval: The base's side.
        """
        self._base, self._task, self._retrieval = problem.base, task, retrieval
        self._head = problem.forward.dense_head
        self.base_found = retrieval.scores(problem.base)

    def balance(self, delta: Tensor) -> Balance:
        """Of a change of the base's weights, float32 [numel], under the fine-tune's own head."""
        accuracy = self._task.scores(delta, self._head)["accuracy"]
        found = self._retrieval.scores(self._base + delta)
        return Balance(
            accuracy, found, accuracy / self._task.dense[1], found.mrr / self.base_found.mrr
        )


@dataclass(frozen=True, eq=False)
class TransferProblem:
    """One task, whose vector is to be put into the base at little cost to the base.

    Attributes:
        task: Its task vector, model and calibration data.
        calibration: Both sides of the calibration data.
        base_texts: Those of the base's side.
        n_rows: Texts of the task's side, at most; None is all.
        keep: Share of the parameters that may change.
    """

    task: Problem
    calibration: Sides
    base_texts: tuple[str, ...]
    n_rows: int | None = None
    keep: float = KEEP

    @property
    def layout(self) -> Layout:
        """Of all flat vectors."""
        return self.task.layout

    @property
    def delta(self) -> Tensor:
        """float32 [numel], the task vector."""
        return self.task.delta

    def loss(self, delta: Tensor) -> float:
        """What is missing of the H-score on the calibration data."""
        return 1 - self.calibration.balance(delta).h_score


def calibration_sides(task: Problem, retrieval: Retrieval) -> Sides:
    """Both sides of what methods are tuned on."""
    held = HeldOut(task.forward, task.base, task.dense, task.calibration.batches)
    return Sides(task, held, retrieval)
