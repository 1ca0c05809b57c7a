"""Fine-tunes of one base as a merging problem, read from their directories."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.merging.encoder import Encoder
from benchmarks.merging.problem import MergeProblem, Objective
from benchmarks.methods.layout import Layout, kinds_of
from benchmarks.quality.data import batches_of
from benchmarks.quality.tasks import body_names, dense_weights, load_module
from nps_store.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.merging.encoder import Answered
    from benchmarks.quality.tasks import FineTune


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
    store: Path | None = None,
) -> Loaded:
    """Read fine-tunes of one base.

    Args:
        tasks: The fine-tunes; one class of model.
        device: Where everything lies.
        n_rows: Calibration texts a task, at most.
        n_test_rows: Test texts a task, at most.
        objective: What methods are tuned for.
        store: Where the fine-tunes are stored already.

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
        tuple(tasks), layout, weights, tuple(deltas), encoder, calibration, objective, store
    )
    return Loaded(problem, test)
