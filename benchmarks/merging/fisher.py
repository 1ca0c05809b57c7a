"""Fisher merging (Matena and Raffel, 2022, arXiv 2111.09832, section 2): the mean that is
weighted by the diagonal of each task's Fisher information."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.merging.method import Estimated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from benchmarks.merging.encoder import Encoder
    from benchmarks.merging.problem import MergeProblem
    from benchmarks.methods.forward import Batch

MAX_TEXTS = 256
"""Texts a task: one backward pass each."""
FLOORS = (1e-9, 1e-6, 1e-3, 1.0)
"""Added to every entry, in units of the mean entry, so that elements which no text touches are
averaged; a large one is plain averaging."""


class Fisher(Estimated):
    """Each Fisher is divided by its norm, as the authors do, so that no task drowns the others;
    floor and scale are tuned."""

    name = "Fisher"

    def candidates(self, problem: MergeProblem) -> Iterator[tuple[Mapping[str, float], Tensor]]:
        """One for every floor."""
        fishers = []
        for task, delta in zip(problem.tasks, problem.deltas, strict=True):
            batches = problem.calibration[task].batches
            information = diagonal(
                problem.encoder, task, problem.base + delta, batches, seed=problem.seed(task)
            )
            fishers.append(information / information.norm().clamp(min=1e-30))
        mean = torch.stack([fisher.mean() for fisher in fishers]).mean()
        for floor in FLOORS:
            yield {"floor": floor}, weighted_mean(problem.deltas, fishers, mean * floor)


def weighted_mean(
    deltas: Sequence[Tensor], fishers: Sequence[Tensor], floor: Tensor | float
) -> Tensor:
    """sum(F_i tau_i) / sum(F_i), element by element, with a floor on every F_i."""
    total, weight = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    for delta, fisher in zip(deltas, fishers, strict=True):
        total += (fisher + floor) * delta
        weight += fisher + floor
    return total / weight


def diagonal(
    encoder: Encoder, task: str, dense: Tensor, batches: Sequence[Batch], *, seed: int
) -> Tensor:
    """Mean over texts of (d log p(y | x) / d theta)^2, y drawn from the model; float32 [numel]."""
    generator = torch.Generator(dense.device).manual_seed(seed)
    weights = dense.clone().requires_grad_()
    total, count = torch.zeros_like(dense), 0
    for inputs in _single(batches):
        if count == MAX_TEXTS:
            break
        log_probs = encoder.logits_at(weights, task, inputs).log_softmax(-1)
        label = torch.multinomial(log_probs.detach().exp(), 1, generator=generator)
        (gradient,) = torch.autograd.grad(log_probs.gather(1, label).sum(), weights)
        total += gradient.square()
        count += 1
    return total / count


def _single(batches: Sequence[Batch]) -> Iterator[dict[str, Tensor]]:
    """The texts one by one, from all batches in turn, since these are sorted by length."""
    for row in range(max(len(batch.labels) for batch in batches)):
        for batch in batches:
            if row < len(batch.labels):
                yield {name: tensor[row : row + 1] for name, tensor in batch.inputs.items()}
