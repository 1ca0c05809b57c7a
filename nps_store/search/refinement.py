"""Learned selection: which of the elements near the threshold to keep, by gradients of the model.

Dithered selection leaves to chance which elements stand for the others. Where the model can be
differentiated, chance can be improved upon: every element near the threshold gets an offset to the
logarithm of its score, and the offsets and one scale a tensor follow the gradient of the objective,
straight through the selection and its levels. This is to sparse task vectors what learned rounding
(AdaRound, Nagel et al., 2020) is to quantised weights. The number of kept elements is held.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from nps_store.errors import NonFiniteObjectiveError
from nps_store.search.selection import MAX_LEVEL

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from nps_store.search.optimizer import Stopwatch
    from nps_store.search.selection import Selection, Selector

MARGIN = 0.5
"""How far below the threshold, in log score, elements may be taken: further ones cost more bits
than they are worth."""
_BETAS = (0.9, 0.99)
_LAST = 0.02
"""Learning rate of the last step, as a share of the first."""


class Learner(Protocol):
    """A model that can be differentiated, on data of its own.

    Attributes:
        device: Where values and gradients lie.
    """

    device: torch.device

    def __call__(self, values: Tensor) -> tuple[float, Tensor]:
        """Loss on the next few examples with `values` added to the base at the elements that the
        learner was made for, and its gradient there; both float32 [n]."""


@dataclass(frozen=True)
class Refinement:
    """How long and how fast to learn.

    Attributes:
        steps: Steps of Adam; 0 leaves selections as they are.
        rate: Learning rate of the offsets, in log score.
        scale_rate: Learning rate of the logarithms of the scales.
    """

    steps: int = 150
    rate: float = 0.05
    scale_rate: float = 0.01


class Near:
    """The elements that may be kept in place of others.

    Attributes:
        index: int64 [n], increasing indices into the pool: all that are kept, and those just below
            the threshold.
    """

    def __init__(self, selector: Selector, selection: Selection) -> None:
        pool = selector.pool
        weighted = np.exp(selection.candidate.log_weights, dtype=np.float32)[pool.band] * pool.score
        threshold = weighted[selection.kept].min(initial=np.inf)
        self.index = np.flatnonzero(weighted >= threshold * np.exp(-MARGIN))
        self._height = np.log(weighted[self.index] / threshold)
        self._selection = selection

    @property
    def positions(self) -> dict[str, NDArray[np.int64]]:
        """Flat positions of the elements by tensor, int64, where there are any."""
        pool = self._selection.pool
        bounds = np.searchsorted(self.index, pool.starts).tolist()
        return {
            name: pool.position[self.index[start:end]].astype(np.int64)
            for name, start, end in zip(pool.tensors, bounds[:-1], bounds[1:], strict=True)
            if end > start
        }

    def learn(
        self, learner: Learner, how: Refinement, *, stopwatch: Stopwatch | None = None
    ) -> Selection:
        """The selection after `how.steps` steps; deterministic on one machine unless the stopwatch
        ends it.

        Raises:
            NonFiniteObjectiveError: The learner's loss is NaN or Inf.
        """
        selection, pool, device = self._selection, self._selection.pool, learner.device
        tau = torch.from_numpy(pool.tau[self.index]).to(device)
        u = tau.abs() / torch.from_numpy(pool.score[self.index]).to(device)
        height = torch.from_numpy(self._height).to(device)
        tensor = np.searchsorted(pool.starts, self.index, side="right") - 1
        owner = torch.from_numpy(tensor).to(device)
        first_scales = torch.from_numpy(selection.scales).to(device)
        offset, log_scale = _Adam(torch.zeros_like(height)), _Adam(torch.zeros_like(first_scales))
        for step in range(how.steps):
            if stopwatch is not None and stopwatch.over:
                break
            one = tau.sign() * (first_scales * log_scale.x.exp())[owner]
            values = one * _levels(height + offset.x, u, selection.n_kept)
            loss, gradient = learner(values)
            if not math.isfinite(loss):
                raise NonFiniteObjectiveError(
                    f"the loss is {loss} in step {step + 1} of learning the selection; expected a "
                    "finite number, so check the calibration data and the fine-tune"
                )
            slowed = max(_LAST, 1 - step / how.steps)
            offset.step_(gradient * one, how.rate * slowed)
            per_tensor = torch.zeros_like(first_scales).index_add_(0, owner, gradient * values)
            log_scale.step_(per_tensor, how.scale_rate * slowed)
        signed = tau.sign() * _levels(height + offset.x, u, selection.n_kept)
        mask = (signed != 0).cpu().numpy()
        return replace(
            selection,
            kept=self.index[mask],
            levels=signed.cpu().numpy()[mask].astype(np.int8),
            scales=(first_scales * log_scale.x.exp()).cpu().numpy(),
        )


def _levels(height: Tensor, u: Tensor, n_kept: int) -> Tensor:
    """Dithered levels, float32 [n], 0 for all but the `n_kept` highest.

    The height is log(x/u), x being the weighted magnitude in steps; where the step is such that the
    lowest kept element has x = u, the level is floor(x + 1 - u).
    """
    highest = height.topk(n_kept, sorted=False)
    x = u * (height - highest.values.min()).exp()
    level = (x + 1 - u).floor_().clamp_(1, MAX_LEVEL)
    mask = torch.zeros_like(level)
    mask[highest.indices] = 1
    return level * mask


class _Adam:
    """One tensor that follows a gradient (Kingma and Ba, 2015)."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self._mean, self._square, self._n = torch.zeros_like(x), torch.zeros_like(x), 0

    def step_(self, gradient: Tensor, rate: float) -> None:
        self._n += 1
        self._mean.lerp_(gradient, 1 - _BETAS[0])
        self._square.lerp_(gradient.square(), 1 - _BETAS[1])
        mean = self._mean / (1 - _BETAS[0] ** self._n)
        square = self._square / (1 - _BETAS[1] ** self._n)
        self.x -= rate * mean / (square.sqrt() + 1e-12)
