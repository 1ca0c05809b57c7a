"""The best band weights at a held rate (paper, equation 4, with the pruning inside).

A candidate is judged by what it keeps: `select` gives that, the objective its loss, and CMA-ES
moves the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nps_store.search.optimizer import Stopwatch, Trial, Vector, minimize
from nps_store.search.pool import Pool, TaskVectors, collect
from nps_store.search.refinement import Refinement
from nps_store.search.selection import Candidate, Selection, Selector

if TYPE_CHECKING:
    from collections.abc import Callable

    from nps_store.search.rule import Rule

# The weights that matter most grow with magnitude: a ramp over the bands is the first guess.
TILTS = (0.0, 0.5, 1.0, 1.5)
# Real values that are pruned to a few must be larger: what is kept stands for what is not.
LOG_SCALES = (0.0, 1.0, 2.0)
# Where most elements are kept, rounding is better than dither: its noise is less, and there are
# few small updates left whose sum it would lose.
AMPLITUDES = (1.0, 0.5, 0.0)
DENSE = 0.15
# The more is kept, the less weights matter: from one rate to the next, they may be too strong.
TEMPERED = (1.0, 0.5, 0.0)


class Objective(Protocol):
    """What the search knows of model and data."""

    def loss(self, selection: Selection) -> float:
        """Share of the fine-tune's gain that is lost on the search data: 0 is the dense fine-tune,
        1 the base."""

    def check(self, selection: Selection) -> float:
        """Share of the gain that is surely kept on data that `loss` does not see."""


@dataclass(frozen=True)
class Plan:
    """How long to search and where.

    Attributes:
        evaluations: Model evaluations of the weight search, at most, at the first rate that is
            tried; later rates start from its solution and take a third, or none where what was
            learned goes along.
        sigma: First standard deviation of the log weights.
        start_keep: First kept fraction.
        refinement: How the selection is learned, where the model can be differentiated.
        seed: Of the search and of the dither.
    """

    evaluations: int = 30
    sigma: float = 0.4
    start_keep: float = 0.006
    refinement: Refinement = field(default_factory=Refinement)
    seed: int = 0


@dataclass(frozen=True)
class Evaluated:
    """A candidate and its loss on the search data; NaN where nothing was evaluated."""

    candidate: Candidate
    loss: float


class WeightSearch:
    """Searches the weights of one task's bands. Deterministic unless the stopwatch ends it.

    Pool and selector of the last rate and amplitude are remembered, to save the time of making them
    anew; what a candidate selects does not depend on what was asked before.

    Attributes:
        n_evaluations: Model evaluations on the search data so far.
    """

    def __init__(
        self,
        vectors: TaskVectors,
        rule: Rule,
        objective: Objective | None,
        *,
        plan: Plan,
        seed: str,
        spare: float,
        device: str,
        stopwatch: Stopwatch,
        report: Callable[[float, float, int], None] | None,
    ) -> None:
        """As `continuation.RateSearch`; `spare` is how many times the kept elements to collect."""
        self._vectors = vectors
        self._rule = rule
        self._objective = objective
        self._plan = plan
        self._seed = seed
        self._spare = spare
        self._device = device
        self._clock = stopwatch
        self._report = report
        self._selector: Selector | None = None
        self.n_evaluations = 0

    def start(self, keep: float) -> Evaluated:
        """The best that is found at a rate without a solution to begin with."""
        return self._improve(keep, self._first(keep), self._plan.evaluations)

    def go_on(
        self,
        keep: float,
        candidate: Candidate,
        *,
        from_keep: float,
        broken: bool,
        learned: bool = False,
    ) -> Evaluated:
        """The best that is found at a rate from the solution of another, which may be one that
        keeps next to nothing, or one that is good at its own rate only. Where its selection was
        learned, learning does the rest, but for dense rates, at which there is little to learn."""
        evaluations = self._plan.evaluations
        further = 0 if learned and keep < DENSE else evaluations // 3
        starts = (candidate.tempered(share) for share in TEMPERED)
        start = min((self.evaluate(keep, one) for one in starts), key=_loss)
        if broken or from_keep < DENSE <= keep:
            start = min(start, self._first(keep), key=_loss)
        return self._improve(keep, start, evaluations if broken else further)

    def evaluate(self, keep: float, candidate: Candidate) -> Evaluated:
        """A given candidate at a rate."""
        if self._objective is None:
            return Evaluated(candidate, float("nan"))
        loss = self._objective.loss(self.select(keep, candidate))
        self.n_evaluations += 1
        if self._report is not None:
            self._report(keep, loss, self.n_evaluations)
        return Evaluated(candidate, loss)

    def select(self, keep: float, candidate: Candidate) -> Selection:
        """What a candidate keeps at a rate."""
        selector = self.selector(keep, candidate.amplitude)
        n_keep = _n_kept(keep, selector.pool.numel)
        return selector.select(candidate.centred(), keep=n_keep)

    def selector(self, keep: float, amplitude: float) -> Selector:
        """That which selects candidates of an amplitude at a rate."""
        made = self._selector
        everything = keep >= DENSE or amplitude != 1  # rounding may keep anything
        if made is None or not _suffices(made.pool, keep, everything=everything):
            made = self._selector = None  # or two pools would lie in memory
            made = Selector(self._collect(keep, everything=everything), amplitude=amplitude)
        elif made.amplitude != amplitude:
            made = Selector(made.pool, amplitude=amplitude)
        self._selector = made
        return made

    def _collect(self, keep: float, *, everything: bool) -> Pool:
        def most(numel: int) -> int:
            return numel if everything else math.ceil(self._spare * _n_kept(keep, numel))

        return collect(
            self._vectors, rule=self._rule, max_keep=most, seed=self._seed, device=self._device
        )

    def _first(self, keep: float) -> Evaluated:
        """The best ramp over the bands, with the best scale of real values, and at dense rates the
        best amplitude of the dither."""
        if self._objective is None or not self._rule.searched:
            return self.evaluate(keep, Candidate.neutral(self._rule.n_bands))
        octaves = np.log(_band_magnitudes(self.selector(keep, 1.0).pool))
        has_choice = keep >= DENSE and self._rule.dithered and self._rule.levels
        ramps = (
            Candidate(tuple((tilt * octaves).tolist()), log_scale, amplitude)
            for amplitude in (AMPLITUDES if has_choice else AMPLITUDES[:1])
            for log_scale in (LOG_SCALES[:1] if self._rule.levels else LOG_SCALES)
            for tilt in TILTS
        )
        return min((self.evaluate(keep, ramp) for ramp in ramps), key=_loss)

    def _improve(self, keep: float, start: Evaluated, budget: int) -> Evaluated:
        if not self._rule.searched or self._objective is None or start.loss <= 0:
            return start

        best = minimize(
            lambda x: self.evaluate(keep, start.candidate.moved(x)).loss,
            Trial(start.candidate.vector(scaled=not self._rule.levels), start.loss),
            sigma=self._plan.sigma,
            seed=self._plan.seed + self.n_evaluations,
            max_evaluations=budget,
            good_enough=0.0,
            stopwatch=self._clock,
        )
        return Evaluated(start.candidate.moved(best.x), best.value)


def _loss(evaluated: Evaluated) -> float:
    return evaluated.loss


def _n_kept(keep: float, numel: int) -> int:
    return max(1, round(keep * numel))


def _suffices(pool: Pool, keep: float, *, everything: bool) -> bool:
    """Whether all is in a pool that a candidate may keep."""
    return pool.holds_all if everything else _n_kept(keep, pool.numel) <= pool.max_keep


def _band_magnitudes(pool: Pool) -> Vector:
    """A typical magnitude of each band, relative to the largest; empty bands are interpolated."""
    typical = np.full(pool.rule.n_bands, np.nan)
    for band in range(pool.rule.n_bands):
        magnitudes = pool.tau[pool.band == band].abs().cpu().numpy()
        if len(magnitudes):
            typical[band] = np.median(magnitudes)
    known = np.flatnonzero(np.isfinite(typical))
    if not len(known):
        return np.ones(pool.rule.n_bands)
    filled = np.interp(np.arange(len(typical)), known, typical[known])
    return np.asarray(filled / filled.max())
