"""What a merging method is given: a base, the vectors of all tasks, calibration data of each."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import xxhash

from nps_store.recipes import LINEAR, combined

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from benchmarks.merging.encoder import Answered, Encoder, Score
    from benchmarks.methods.layout import Layout, Span
    from benchmarks.quality.tasks import FineTune

Objective = Literal["accuracy", "divergence"]
TIE = 1e-4
"""Weight of the divergence among vectors of the same accuracy."""


@dataclass(frozen=True, eq=False)
class MergeProblem:
    """Fine-tunes of one base, to be merged into one body.

    Attributes:
        sources: Where the fine-tunes lie, for methods that read them themselves.
        layout: Of all flat vectors.
        base: float32 [numel].
        deltas: Task vectors, float32 [numel] each, in the order of `sources`.
        encoder: The model of all tasks, on the device of the vectors.
        calibration: Of every task; the only data that a method may tune anything on.
        objective: What it is tuned for.
        store: Where the fine-tunes are stored already, for methods that merge stored ones; None to
            have them store them.
    """

    sources: tuple[FineTune, ...]
    layout: Layout
    base: Tensor
    deltas: tuple[Tensor, ...]
    encoder: Encoder
    calibration: Mapping[str, Answered]
    objective: Objective = "accuracy"
    store: Path | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(source.name for source in self.sources)

    @property
    def linear(self) -> tuple[Span, ...]:
        """The weights of linear layers."""
        return tuple(span for span in self.layout.spans if span.kind == "linear")

    @cached_property
    def mean(self) -> Tensor:
        """float32 [numel], the average of the task vectors."""
        n = len(self.deltas)
        return combined(LINEAR, self.deltas, [1 / n] * n, {})

    def halves(self) -> tuple[MergeProblem, MergeProblem]:
        """The same with half of each task's calibration texts, none in both."""
        first, second = (
            replace(self, calibration={n: data.half(which) for n, data in self.calibration.items()})
            for which in (0, 1)
        )
        return first, second

    def loss(self, delta: Tensor) -> float:
        """Of a merged vector over the calibration data; less is better."""
        return self._loss(self.encoder.scores(self.base + delta, self.calibration))

    def task_loss(self, task: str, delta: Tensor) -> float:
        """The same of one task alone."""
        one = {task: self.calibration[task]}
        return self._loss(self.encoder.scores(self.base + delta, one))

    def seed(self, task: str) -> int:
        """Of what is random about a task."""
        return xxhash.xxh32_intdigest(task.encode())

    def _loss(self, scores: Mapping[str, Score]) -> float:
        divergence = statistics.fmean(score.divergence for score in scores.values())
        if self.objective == "divergence":
            return divergence
        accuracy = statistics.fmean(score.accuracy for score in scores.values())
        return 1 - accuracy + TIE * divergence
