"""Real values of kept elements in as few bits as do no harm.

Stored in f16 the values would cost several times their positions; so every method that keeps real
values gets levels with a scale a tensor, as coarse as its own calibration loss allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.methods.levels import array_of, levels_of, quantize, tensor_rms
from benchmarks.methods.tuning import best_scale, coarsest

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.methods.layout import Layout
    from benchmarks.methods.method import Parts
    from benchmarks.methods.problem import Problem

STEPS = (2.0, 1.0, 0.5, 0.25, 0.1)
"""Steps in units of the root mean square of a tensor's kept values: about 1 to 6 bits a value."""


def fit_values(
    problem: Problem, kept: Tensor, *, scaled: bool
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Levels int8 [numel] and scales float32 [n_tensors] for a vector that is 0 where nothing is
    kept; with a searched factor on all values where `scaled`."""
    factor = best_scale(problem, kept)[0] if scaled else 1.0
    wanted = kept * factor
    rms = tensor_rms(problem.layout, wanted)

    def levels(step: float) -> Tensor:
        return quantize(wanted, problem.layout.spread(rms * step))

    step = coarsest(
        STEPS,
        lambda s: problem.loss(levels(s) * problem.layout.spread(rms * s)),
        reference=problem.loss(wanted),
        base=problem.base_loss,
    )
    return levels(step), rms * step, {"factor": factor, "step": step}


def values_of(parts: Parts, layout: Layout) -> Tensor:
    """float32 [numel] of the parts `levels` and `scales`."""
    return levels_of(parts["levels"]) * layout.spread(array_of(parts["scales"]))
