"""A candidate: band weights and a scale at a fixed number of kept elements.

The rate is held: whatever the weights, the step is solved so that exactly the asked number of
elements is kept (up to ties). Only the ratios of the weights matter, therefore.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import bisect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from nps_store.search.pool import Pool
    from nps_store.search.rule import Float32

MAX_LEVEL = 127
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Candidate:
    """Parameters of the method: equation (4) of the paper, with the pruning inside.

    Attributes:
        log_weights: Natural logarithm of each band's weight, float64 [n_bands].
        log_scale: Natural logarithm of the common scale of all stored values.
    """

    log_weights: tuple[float, ...]
    log_scale: float = 0.0

    @classmethod
    def neutral(cls, n_bands: int) -> Candidate:
        """All weights and the scale at one."""
        return cls((0.0,) * n_bands)

    @classmethod
    def from_vector(cls, x: NDArray[np.float64]) -> Candidate:
        """From an optimizer's vector: weights relative to their mean, then the scale."""
        weights = x[:-1] - x[:-1].mean()
        return cls(tuple(weights.tolist()), float(x[-1]))

    def vector(self) -> NDArray[np.float64]:
        """The optimizer's vector, float64 [n_bands + 1]."""
        return np.array([*self.log_weights, self.log_scale])


@dataclass(frozen=True)
class Selection:
    """What a candidate keeps and stores.

    Attributes:
        pool: Where the elements come from.
        candidate: What it was made by.
        kept: int64 [n], indices into the pool's arrays, increasing.
        levels: int8 [n] sign and magnitude level, or None where real values are stored.
        reals: float32 [n] values where real ones are stored, else None.
        scales: float32 [n_tensors], the value of one level (0 where real values are stored).
    """

    pool: Pool
    candidate: Candidate
    kept: NDArray[np.int64]
    levels: NDArray[np.int8] | None
    reals: Float32 | None
    scales: Float32

    @property
    def n_kept(self) -> int:
        """Elements kept."""
        return len(self.kept)

    @cached_property
    def spans(self) -> dict[str, slice]:
        """Tensor name to its slice of the kept arrays, where any are kept."""
        bounds = np.searchsorted(self.kept, self.pool.starts).tolist()
        return {
            name: slice(start, end)
            for name, start, end in zip(self.pool.tensors, bounds[:-1], bounds[1:], strict=True)
            if end > start
        }

    @cached_property
    def _element_scales(self) -> Float32:
        return np.repeat(self.scales, np.diff(np.searchsorted(self.kept, self.pool.starts)))

    @property
    def values(self) -> Float32:
        """float32 [n] to be added to the base."""
        return self.values_in(slice(None))

    def values_in(self, span: slice) -> Float32:
        """The values of a slice; computed anew, since levels take a quarter of the memory."""
        if self.reals is not None:
            return self.reals[span]
        if self.levels is None:
            raise ValueError("a selection has levels or real values; this one has neither")
        return self.levels[span] * self._element_scales[span]

    def scale_of(self, name: str) -> np.float32:
        """The value of one level in a tensor."""
        return np.float32(self.scales[self.pool.tensors.index(name)])

    def positions_in(self, span: slice) -> NDArray[np.int64]:
        """Flat positions in their tensor of the elements of a slice, int64."""
        return self.pool.position[self.kept[span]].astype(np.int64)

    def tensors(self) -> Iterator[tuple[str, slice, NDArray[np.int64]]]:
        """(tensor name, slice of the kept arrays, positions in the tensor), where any are kept."""
        for name, span in self.spans.items():
            yield name, span, self.positions_in(span)


class Selector:
    """Turns candidates into selections; keeps each band's scores sorted to do so quickly."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        bands = [pool.band == m for m in range(pool.rule.n_bands)]
        self._sorted = [np.sort(pool.score[band]) for band in bands]
        self._peaks = np.array([np.abs(pool.tau[band]).max(initial=0) for band in bands])

    def select(self, candidate: Candidate, *, keep: int) -> Selection:
        """Keep `keep` elements; fewer where the task vector has fewer non-zero ones, or where a
        step so fine would need levels beyond `MAX_LEVEL`."""
        pool = self.pool
        thresholds = self.thresholds(candidate, keep)
        kept = np.flatnonzero(pool.score >= thresholds[pool.band])
        scale = float(np.exp(candidate.log_scale))
        if not pool.rule.levels:
            weights = np.exp(np.asarray(candidate.log_weights))[pool.band[kept]]
            if pool.rule.random:
                scale *= pool.n_changed / max(len(kept), 1)
            reals = (pool.tau[kept] * weights * scale).astype(np.float32)
            return Selection(pool, candidate, kept, None, reals, self._same(0.0))
        levels, projection = self._levels(kept, thresholds)
        # The common value is the one whose projection on the task vector is the task vector's own,
        # so that scale 1 is unbiased whatever the weights.
        step = scale * float(pool.energy.sum()) / projection if projection else 0.0
        return Selection(pool, candidate, kept, levels, None, self._same(step))

    def _same(self, scale: float) -> Float32:
        return np.full(len(self.pool.tensors), scale, dtype=np.float32)

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

    def _levels(
        self, kept: NDArray[np.int64], thresholds: Float32
    ) -> tuple[NDArray[np.int8], float]:
        """Dithered rounding: sign times floor(x + 1 - u) with x = w|tau|/step, at least 1 as
        x >= u; and the projection of these levels on the task vector."""
        pool = self.pool
        levels = np.empty(len(kept), dtype=np.int8)
        projection = 0.0
        for start in range(0, len(kept), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            tau = pool.tau[kept[chunk]]
            magnitude = np.abs(tau, dtype=np.float64)
            x = magnitude / thresholds[pool.band[kept[chunk]]]
            u = magnitude / pool.score[kept[chunk]]
            level = np.clip(np.floor(x + 1 - u), 1, MAX_LEVEL)
            projection += float(magnitude @ level)
            levels[chunk] = np.where(tau < 0, -level, level)
        return levels, projection
