"""Learned selection: which of the elements near the threshold to keep, by gradients of the model.

Dithered selection leaves to chance which elements stand for the others. Where the model can be
differentiated, chance can be improved upon: every element near the threshold gets an offset to the
logarithm of its score, and the offsets follow the gradient of the objective, straight through the
selection and its levels. This is to sparse task vectors what learned rounding (AdaRound, Nagel et
al., 2020) is to quantised weights. The number of kept elements is held, and so is the scale: a
learned one shrinks the task vector, which serves the divergence and harms what the fine-tune was
made for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch

from nps_store.errors import NonFiniteObjectiveError
from nps_store.search.selection import MAX_LEVEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from nps_store.search.optimizer import Stopwatch
    from nps_store.search.selection import Selection, Selector

MARGIN = 0.5
"""How far below the threshold, in log score, elements may be taken: further ones cost more bits
than they are worth."""
LEAST_SHARE = 0.25
"""Of the steps, where learning starts from another rate's."""
_BETAS = (0.9, 0.99)
_LAST = 0.02
"""Learning rate of the last step, as a share of the first."""


class Learner(Protocol):
    """A model that can be differentiated, on data of its own."""

    def __call__(self, values: Tensor) -> tuple[float, Tensor]:
        """Loss on the next few examples with `values` added to the base at the elements that the
        learner was made for, and its gradient there; both float32 [n] on one device."""


@dataclass(frozen=True)
class Refinement:
    """How long and how fast to learn.

    Attributes:
        steps: Steps of Adam at the first rate that is tried; 0 leaves selections as they are. Later
            rates start from what was learned before; they take the share of the steps by which
            their elements are new, but at least a quarter.
        rate: Learning rate of the offsets, in log score.
    """

    steps: int = 200
    rate: float = 0.05

    def continued(self, *, new: float) -> Refinement:
        """Of a selection that starts from another's offsets, of which a share `new` has none."""
        return replace(self, steps=math.ceil(self.steps * max(new, LEAST_SHARE)))


@dataclass(frozen=True, eq=False)
class Learned:
    """A learned selection, and what another rate's may start from.

    Attributes:
        selection: What to store.
        offsets: By tensor: flat positions, int64 [n], increasing, and the offsets of the elements
            there to their log scores, float32 [n].
    """

    selection: Selection
    offsets: Mapping[str, tuple[Tensor, Tensor]]


class Near:
    """The elements that may be kept in place of others.

    Attributes:
        index: int64 [n], increasing indices into the pool: all that are kept, and those just below
            the threshold.

    Raises:
        ValueError: The selection was made from another pool than the selector's.
    """

    def __init__(self, selector: Selector, selection: Selection) -> None:
        pool, score = selection.pool, selector.score
        if selector.pool is not pool:
            raise ValueError("selector and selection are of different pools")
        weights = torch.tensor(selection.candidate.log_weights, device=score.device).exp()
        kept = selection.kept
        threshold = (weights[pool.band[kept].int()] * score[kept]).min()
        least = threshold * math.exp(-MARGIN)
        self.index = selector.where(lambda score, band: weights[band] * score >= least)
        near = score[self.index]
        self._height = (weights[pool.band[self.index].int()] * near / threshold).log()
        self._tau = pool.tau[self.index]
        self._u = self._tau.abs() / near
        self._selection = selection
        self._bounds: list[int] = torch.searchsorted(self.index, pool.starts).tolist()

    @cached_property
    def positions(self) -> dict[str, Tensor]:
        """Flat positions of the elements by tensor, int64, where there are any."""
        pool = self._selection.pool
        pairs = zip(self._bounds[:-1], self._bounds[1:], strict=True)
        return {
            name: pool.positions(self.index[start:end])
            for name, (start, end) in zip(pool.tensors, pairs, strict=True)
            if end > start
        }

    def learn(
        self,
        learner: Learner,
        how: Refinement,
        *,
        start: Learned | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> Learned:
        """The selection after `how.steps` steps, from the offsets that another rate's ended with;
        deterministic on one machine unless the stopwatch ends it.

        Raises:
            NonFiniteObjectiveError: The learner's loss is NaN or Inf.
        """
        selection, height = self._selection, self._height
        counts = torch.tensor(self._bounds, device=height.device).diff()
        one = self._tau.sign() * selection.scales.repeat_interleave(counts)
        offset = _Adam(torch.zeros_like(height) if start is None else self._offsets(start))
        for step in range(how.steps):
            if stopwatch is not None and stopwatch.over:
                break
            values = one * _levels(height + offset.x, self._u, selection.n_kept)
            loss, gradient = learner(values)
            if not math.isfinite(loss):
                raise NonFiniteObjectiveError(
                    f"the loss is {loss} in step {step + 1} of learning the selection; expected a "
                    "finite number, so check the calibration data and the fine-tune"
                )
            slowed = max(_LAST, 1 - step / how.steps)
            offset.step_(gradient * one, how.rate * slowed)
        signed = self._tau.sign() * _levels(height + offset.x, self._u, selection.n_kept)
        kept = torch.nonzero(signed)[:, 0]
        index = self.index[kept]
        learned = replace(
            selection,
            kept=index,
            positions=selection.pool.positions(index),
            levels=signed[kept].to(torch.int8),
        )
        sizes = [len(positions) for positions in self.positions.values()]
        pairs = zip(self.positions.values(), torch.split(offset.x, sizes), strict=True)
        return Learned(learned, dict(zip(self.positions, pairs, strict=True)))

    def _offsets(self, start: Learned) -> Tensor:
        """What was learned of each element; 0 where it was not near then."""
        return torch.cat(
            [
                _looked_up(positions, *start.offsets[name])
                if name in start.offsets
                else torch.zeros(len(positions), device=positions.device)
                for name, positions in self.positions.items()
            ]
        )


def _looked_up(wanted: Tensor, positions: Tensor, offsets: Tensor) -> Tensor:
    """The offsets at wanted positions, float32 [n]; 0 at those that are not listed."""
    place = torch.searchsorted(positions, wanted).clamp_(max=len(positions) - 1)
    return torch.where(positions[place] == wanted, offsets[place], 0)


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
