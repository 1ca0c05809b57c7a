"""A candidate: band weights and a scale at a fixed number of kept elements.

The rate is held: whatever the weights, the step is solved so that exactly the asked number of
elements is kept (up to ties). Only the ratios of the weights matter, therefore.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import bisect
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from nps_store.search.pool import Pool
    from nps_store.search.rule import Float32

MAX_LEVEL = 127
_CHUNK = 1 << 24
_RUN = 1 << 20


@dataclass(frozen=True)
class Candidate:
    """Parameters of the method: equation (4) of the paper, with the pruning inside.

    Attributes:
        log_weights: Natural logarithm of each band's weight, float64 [n_bands].
        log_scale: Natural logarithm of the common scale of all stored values, where these are real
            ones. Levels have none: the scale that is best by divergence shrinks the task vector to
            spare noise, and what the fine-tune was made for shrinks with it.
        amplitude: Of the dither: 1 is unbiased, 0 plain rounding.
    """

    log_weights: tuple[float, ...]
    log_scale: float = 0.0
    amplitude: float = 1.0

    @classmethod
    def neutral(cls, n_bands: int) -> Candidate:
        """All weights and the scale at one."""
        return cls((0.0,) * n_bands)

    def vector(self, *, scaled: bool) -> NDArray[np.float64]:
        """The optimizer's vector, float64 [n_bands], or [n_bands + 1] with the scale."""
        return np.array([*self.log_weights, self.log_scale][: len(self.log_weights) + scaled])

    def moved(self, x: NDArray[np.float64]) -> Candidate:
        """The candidate at another vector, with a scale or without."""
        weights, scale = np.split(x, [len(self.log_weights)])
        log_scale = float(scale[0]) if len(scale) else self.log_scale
        return replace(self, log_weights=tuple(weights.tolist()), log_scale=log_scale)

    def tempered(self, share: float) -> Candidate:
        """The same with weights that differ less, by a share in logarithms."""
        return replace(self, log_weights=tuple(share * weight for weight in self.log_weights))

    def centred(self) -> Candidate:
        """The same with weights relative to their geometric mean, since only ratios matter."""
        weights = np.array(self.log_weights)
        return replace(self, log_weights=tuple((weights - weights.mean()).tolist()))


@dataclass(frozen=True, eq=False)
class Selection:
    """What a candidate keeps and stores; tensors lie on the pool's device.

    Attributes:
        pool: Where the elements come from.
        candidate: What it was made by.
        kept: int64 [n], indices into the pool's arrays, increasing.
        positions: int64 [n], flat positions in their own tensors.
        levels: int8 [n] sign and magnitude level, or None where real values are stored.
        reals: float32 [n] values where real ones are stored, else None.
        scales: float32 [n_tensors], the value of one level (0 where real values are stored).
    """

    pool: Pool
    candidate: Candidate
    kept: Tensor
    positions: Tensor
    levels: Tensor | None
    reals: Tensor | None
    scales: Tensor

    @property
    def n_kept(self) -> int:
        """Elements kept."""
        return len(self.kept)

    @cached_property
    def _bounds(self) -> list[int]:
        bounds: list[int] = torch.searchsorted(self.kept, self.pool.starts).tolist()
        return bounds

    @cached_property
    def spans(self) -> dict[str, slice]:
        """Tensor name to its slice of the kept arrays, where any are kept."""
        pairs = zip(self._bounds[:-1], self._bounds[1:], strict=True)
        return {
            name: slice(start, end)
            for name, (start, end) in zip(self.pool.tensors, pairs, strict=True)
            if end > start
        }

    @cached_property
    def _element_scales(self) -> Tensor:
        counts = torch.tensor(self._bounds, device=self.scales.device).diff()
        return torch.repeat_interleave(self.scales, counts)

    @property
    def values(self) -> Tensor:
        """float32 [n] to be added to the base."""
        return self.values_in(slice(None))

    def values_in(self, span: slice) -> Tensor:
        """The values of a slice, float32; computed anew, as levels take a quarter of the memory."""
        if self.reals is not None:
            return self.reals[span]
        if self.levels is None:
            raise ValueError("a selection has levels or real values; this one has neither")
        return self.levels[span] * self._element_scales[span]

    def scale_of(self, name: str) -> float:
        """The value of one level in a tensor, a float32."""
        return float(self.scales[self.pool.tensors.index(name)])

    def tensors(self) -> Iterator[tuple[str, slice, Tensor]]:
        """(tensor name, slice of the kept arrays, positions in the tensor), where any are kept."""
        for name, span in self.spans.items():
            yield name, span, self.positions[span]


class Selector:
    """Turns candidates of one amplitude into selections; keeps each band's scores sorted to do so
    quickly.

    Attributes:
        pool: The elements.
        amplitude: Of the candidates that it selects for.
        score: float32 [n], the pool's with the dither at this amplitude.
    """

    def __init__(self, pool: Pool, *, amplitude: float = 1.0) -> None:
        """Sort the scores.

        Raises:
            ValueError: The amplitude is not 1 and the pool lacks elements that are not zero: one
                may then be kept that none of amplitude 1 would have kept.
        """
        if amplitude != 1 and not pool.holds_all:
            raise ValueError("only a pool of all changed elements can be rounded otherwise")
        self.pool = pool
        self.amplitude = amplitude
        self.score = pool.score if amplitude == 1 else _drawn_in(pool, amplitude)
        bands = range(pool.rule.n_bands)
        self._sorted = [_ascending(self.score[pool.band == m]) for m in bands]
        self._peaks = np.array([_peak(pool.tau[pool.band == m]) for m in bands])

    def select(self, candidate: Candidate, *, keep: int) -> Selection:
        """Keep `keep` elements; fewer where the task vector has fewer non-zero ones, or where a
        step so fine would need levels beyond `MAX_LEVEL`.

        Raises:
            ValueError: The candidate is of another amplitude, or `keep` more than was collected.
        """
        pool = self.pool
        if candidate.amplitude != self.amplitude:
            raise ValueError(f"amplitude is {candidate.amplitude}; expected {self.amplitude}")
        thresholds = torch.from_numpy(self.thresholds(candidate, keep)).to(self.score.device)
        kept = self.where(lambda score, band: score >= thresholds[band])
        if pool.rule.levels:
            levels, projection = self._levels(kept, thresholds)
            # The common value is the one whose projection on the task vector is the task vector's
            # own: unbiased whatever the weights.
            step = float(pool.energy.sum()) / projection if projection else 0.0
            return self._selection(candidate, kept, levels=levels, scale=step)
        scale = float(np.exp(candidate.log_scale))
        weights = torch.tensor(candidate.log_weights, device=self.score.device).exp()
        if pool.rule.random:
            scale *= pool.n_changed / max(len(kept), 1)
        reals = pool.tau[kept] * weights[pool.band[kept].int()] * scale
        return self._selection(candidate, kept, reals=reals)

    def where(self, holds: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """int64 [n], increasing indices of the elements for which a condition on scores and bands
        (float32 and int32, a run of the pool at a time) holds."""
        runs = zip(*(torch.split(each, _RUN) for each in (self.score, self.pool.band)), strict=True)
        found = [torch.nonzero(holds(score, band.int()))[:, 0] for score, band in runs]
        return torch.cat([index.add_(_RUN * number) for number, index in enumerate(found)])

    def _selection(
        self,
        candidate: Candidate,
        kept: Tensor,
        *,
        levels: Tensor | None = None,
        reals: Tensor | None = None,
        scale: float = 0.0,
    ) -> Selection:
        pool = self.pool
        scales = torch.full((len(pool.tensors),), scale, device=self.score.device)
        return Selection(pool, candidate, kept, pool.positions(kept), levels, reals, scales)

    def thresholds(self, candidate: Candidate, keep: int) -> Float32:
        """Score each band's elements must reach, so that `keep` are kept in all (at most);
        float32."""
        if keep > self.pool.max_keep:
            raise ValueError(f"keep is {keep}; expected at most {self.pool.max_keep} as collected")
        weights = np.exp(np.asarray(candidate.log_weights))

        def cuts(log_step: float) -> Float32:
            with np.errstate(over="ignore"):  # an infinite threshold keeps nothing, as it should
                edges: Float32 = (np.exp(log_step) / weights).astype(np.float32)
            return edges

        def surplus(log_step: float) -> float:
            counts = [
                len(scores) - int(np.searchsorted(scores, edge, side="left"))
                for scores, edge in zip(self._sorted, cuts(log_step), strict=True)
            ]
            return sum(counts) - (keep + 0.5)

        finest, coarsest = self._finest(weights), 80.0
        if surplus(finest) < 0:
            return cuts(finest)
        log_step = float(bisect(surplus, finest, coarsest, xtol=1e-9))
        while surplus(log_step) > 0:
            log_step += 1e-9
        return cuts(log_step)

    def _finest(self, weights: NDArray[np.float64]) -> float:
        """Logarithm of the finest step: where levels are stored, the largest must fit."""
        peak = float((weights * self._peaks).max())
        return float(np.log(peak / MAX_LEVEL)) if self.pool.rule.levels and peak else -200.0

    def _levels(self, kept: Tensor, thresholds: Tensor) -> tuple[Tensor, float]:
        """Dithered rounding: sign times floor(x + 1 - u) with x = w|tau|/step, at least 1 as
        x >= u; and the projection of these levels on the task vector."""
        levels = torch.empty(len(kept), dtype=torch.int8, device=kept.device)
        projection = 0.0
        for start in range(0, len(kept), _CHUNK):
            run = kept[start : start + _CHUNK]
            tau = self.pool.tau[run]
            magnitude = tau.double().abs()
            x = magnitude / thresholds[self.pool.band[run].int()]
            u = magnitude / self.score[run]
            level = (x + 1 - u).floor_().clamp_(1, MAX_LEVEL)
            projection += float(magnitude @ level)
            levels[start : start + _CHUNK] = torch.copysign(level, tau)
        return levels, projection


def _drawn_in(pool: Pool, amplitude: float) -> Tensor:
    """The scores with the numbers drawn in to their middle: u' = 1/2 + a (u - 1/2).

    Amplitude 1 is unbiased dither, 0 plain rounding.
    """
    magnitude = pool.tau.abs()
    return magnitude / (0.5 + amplitude * (magnitude / pool.score - 0.5))


def _ascending(scores: Tensor) -> Float32:
    """On the host, where a look for a threshold is a few dozen small steps."""
    if scores.device.type == "cpu":
        return np.sort(scores.numpy())  # in a third of torch's time, and without indices
    sorted_scores: Float32 = scores.sort().values.cpu().numpy()
    return sorted_scores


def _peak(values: Tensor) -> float:
    return float(values.abs().max()) if len(values) else 0.0
