"""ComPEFT (Yadav et al., 2023): signs of the largest elements and one searched scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.methods.levels import array_part, record_of
from benchmarks.methods.method import Baseline, Fitted, Parts, Setting
from benchmarks.methods.trim import top
from benchmarks.methods.tuning import best_scale
from benchmarks.methods.values import values_of

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.methods.problem import Problem, Receiver


class ComPeft(Baseline):
    """Ternary values, Rice-coded.

    The paper multiplies all signs by one alpha * sigma; with each tensor's own mean magnitude times
    a common searched factor it is often better, so the better of the two is stored.
    """

    name = "ComPEFT"
    settings = tuple({"keep": keep} for keep in (0.0025, 0.005, 0.01, 0.02, 0.04, 0.1, 0.2, 0.4))

    def fit(self, problem: Problem, setting: Setting) -> Fitted:
        """Cut, take signs, search the scale in both scopes."""
        kept = top(problem.delta, setting["keep"])
        signs = kept.sign()
        magnitude = {
            "model": (kept.abs().sum() / signs.count_nonzero()).expand(len(problem.layout.spans)),
            "tensor": torch.stack(
                [
                    tensor.abs().sum() / tensor.count_nonzero().clamp(min=1)
                    for _, tensor in problem.layout.views(kept)
                ]
            ),
        }
        found = {
            scope: best_scale(problem, signs * problem.layout.spread(scales))
            for scope, scales in magnitude.items()
        }
        scope = min(found, key=lambda s: found[s][1])
        scales = magnitude[scope] * found[scope][0]
        parts = {"levels": record_of(signs.to(torch.int8)), "scales": array_part(scales)}
        return Fitted(parts, tuned={"scope": scope, "factor": found[scope][0]})

    def decode(self, parts: Parts, shared: Parts, receiver: Receiver) -> Tensor:  # noqa: ARG002
        """Signs times scales."""
        return values_of(parts, receiver.layout)
