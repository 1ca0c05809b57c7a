"""A candidate: band weights and a scale at a fixed number of kept elements.

The rate is held: whatever the weights, the step is solved so that exactly the asked number of
elements is kept (up to ties). Only the ratios of the weights matter, therefore.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import bisect
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from nps_store.search.pool import Pool
    from nps_store.search.rule import Float32

MAX_LEVEL = 127
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Candidate:
    """Parameters of the method: equation (4) of the paper, with the pruning inside.

    Attributes:
        log_weights: Natural logarithm of each band's weight, float64 [n_bands].
        log_scale: Natural logarithm of the common scale of all stored values.
        amplitude: Of the dither: 1 is unbiased, 0 plain rounding.
    """

    log_weights: tuple[float, ...]
    log_scale: float = 0.0
    amplitude: float = 1.0

    @classmethod
    def neutral(cls, n_bands: int) -> Candidate:
        """All weights and the scale at one."""
        return cls((0.0,) * n_bands)

    @classmethod
    def from_vector(cls, x: NDArray[np.float64], *, amplitude: float = 1.0) -> Candidate:
        """From an optimizer's vector: weights relative to their mean, then the scale."""
        weights = x[:-1] - x[:-1].mean()
        return cls(tuple(weights.tolist()), float(x[-1]), amplitude)

    def vector(self) -> NDArray[np.float64]:
        """The optimizer's vector, float64 [n_bands + 1]."""
        return np.array([*self.log_weights, self.log_scale])


@dataclass(frozen=True, eq=False)
class Selection:
    """What a candidate keeps and stores; tensors lie on the selector's device.

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
        starts = torch.from_numpy(self.pool.starts).to(self.kept.device)
        bounds: list[int] = torch.searchsorted(self.kept, starts).tolist()
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
    """Turns candidates into selections; keeps each band's scores sorted to do so quickly."""

    def __init__(self, pool: Pool, *, device: str = "cpu") -> None:
        self.pool = pool
        self.device = torch.device(device)
        bands = [pool.band == m for m in range(pool.rule.n_bands)]
        self._sorted = [np.sort(pool.score[band]) for band in bands]
        self._peaks = np.array([np.abs(pool.tau[band]).max(initial=0) for band in bands])
        self.score = torch.from_numpy(pool.score).to(self.device)
        self.tau = torch.from_numpy(pool.tau).to(self.device)
        self.band = torch.from_numpy(pool.band).to(self.device, torch.int32)
        self.position = torch.from_numpy(pool.position.astype(np.int64)).to(self.device)

    def select(self, candidate: Candidate, *, keep: int) -> Selection:
        """Keep `keep` elements; fewer where the task vector has fewer non-zero ones, or where a
        step so fine would need levels beyond `MAX_LEVEL`."""
        pool = self.pool
        thresholds = torch.from_numpy(self.thresholds(candidate, keep)).to(self.device)
        kept = torch.nonzero(self.score >= thresholds[self.band])[:, 0]
        scale = float(np.exp(candidate.log_scale))
        if pool.rule.levels:
            levels, projection = self._levels(kept, thresholds)
            # The common value is the one whose projection on the task vector is the task vector's
            # own, so that scale 1 is unbiased whatever the weights.
            step = scale * float(pool.energy.sum()) / projection if projection else 0.0
            return self._selection(candidate, kept, levels=levels, scale=step)
        weights = torch.tensor(candidate.log_weights, device=self.device).exp()[self.band[kept]]
        if pool.rule.random:
            scale *= pool.n_changed / max(len(kept), 1)
        return self._selection(candidate, kept, reals=self.tau[kept] * weights * scale)

    def _selection(
        self,
        candidate: Candidate,
        kept: Tensor,
        *,
        levels: Tensor | None = None,
        reals: Tensor | None = None,
        scale: float = 0.0,
    ) -> Selection:
        scales = torch.full((len(self.pool.tensors),), scale, device=self.device)
        return Selection(self.pool, candidate, kept, self.position[kept], levels, reals, scales)

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
        levels = torch.empty(len(kept), dtype=torch.int8, device=self.device)
        projection = 0.0
        for start in range(0, len(kept), _CHUNK):
            run = kept[start : start + _CHUNK]
            tau = self.tau[run]
            magnitude = tau.double().abs()
            x = magnitude / thresholds[self.band[run]]
            u = magnitude / self.score[run]
            level = (x + 1 - u).floor_().clamp_(1, MAX_LEVEL)
            projection += float(magnitude @ level)
            levels[start : start + _CHUNK] = torch.copysign(level, tau)
        return levels, projection
