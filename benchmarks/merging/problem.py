"""What a merging method is given: a base, the vectors of all tasks, calibration data of each."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal

import xxhash

from benchmarks.merging.encoder import Encoder
from benchmarks.methods.layout import Layout, kinds_of
from benchmarks.quality.data import batches_of
from benchmarks.quality.tasks import body_names, dense_weights, load_module
from nps_store.checkpoint import Checkpoint
from nps_store.recipes import LINEAR, combined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from benchmarks.merging.encoder import Answered, Score
    from benchmarks.methods.layout import Span
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
    """

    sources: tuple[FineTune, ...]
    layout: Layout
    base: Tensor
    deltas: tuple[Tensor, ...]
    encoder: Encoder
    calibration: Mapping[str, Answered]
    objective: Objective = "accuracy"

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


@dataclass(frozen=True)
class Loaded:
    """A problem, and the test data that its methods do not see."""

    problem: MergeProblem
    test: Mapping[str, Answered]


def load(
    tasks: Sequence[FineTune],
    device: str,
    *,
    n_rows: int | None = None,
    n_test_rows: int | None = None,
    objective: Objective = "accuracy",
) -> Loaded:
    """Read fine-tunes of one base.

    Args:
        tasks: The fine-tunes; one class of model.
        device: Where everything lies.
        n_rows: Calibration texts a task, at most.
        n_test_rows: Test texts a task, at most.
        objective: What methods are tuned for.

    Raises:
        ValueError: The fine-tunes are of different classes, or have other tensors than the base.
    """
    base = Checkpoint(tasks[0].base)
    modules = {task.name: load_module(task.path) for task in tasks}
    first = modules[tasks[0].name].to(device)
    if len({type(module) for module in modules.values()}) > 1:
        raise ValueError("the fine-tunes are models of different classes: one encoder holds none")
    names = body_names(first, base)
    kinds = kinds_of(first)
    layout = Layout.of(
        {name: base.shape(name) for name in names},
        {name: kinds[own] for name, own in names.items() if own in kinds},
    )
    weights = layout.flatten({name: base.tensor(name) for name in names}, device)
    body = set(names.values())
    heads = {
        task: {n: p.detach().to(device) for n, p in module.named_parameters() if n not in body}
        for task, module in modules.items()
    }
    encoder = Encoder(first, layout, names, heads)
    deltas, calibration, test = [], {}, {}
    for task in tasks:
        dense = dense_weights(layout, Checkpoint(task.path), names, device)
        config = modules[task.name].config
        batches = partial(batches_of, model=task.path, config=config, device=device)
        calibration[task.name] = encoder.answered(
            task.name, dense, batches(task.data("calibration"), n_rows=n_rows)
        )
        test[task.name] = encoder.answered(
            task.name, dense, batches(task.data("test"), n_rows=n_test_rows)
        )
        deltas.append(dense - weights)
    problem = MergeProblem(
        tuple(tasks), layout, weights, tuple(deltas), encoder, calibration, objective
    )
    return Loaded(problem, test)
