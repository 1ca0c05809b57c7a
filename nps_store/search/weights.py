"""The best band weights at a held rate (paper, equation 4, with the pruning inside).

A candidate is judged by what it keeps: `select` gives that, the objective its loss, and CMA-ES
moves the weights.
"""

from __future__ import annotations

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
# Where most elements are kept, rounding is better than dither: its noise is less, and there are
# few small updates left whose sum it would lose.
AMPLITUDES = (1.0, 0.5, 0.0)
DENSE = 0.15


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
            tried; later rates start from its solution and take a third.
        sigma: First standard deviation of the log weights.
        start_keep: First kept fraction.
        refinement: How the selection is learned, where the model can be differentiated.
        seed: Of the search and of the dither.
    """

    evaluations: int = 60
    sigma: float = 0.4
    start_keep: float = 0.006
    refinement: Refinement = field(default_factory=Refinement)
    seed: int = 0


class WeightSearch:
    """Searches the weights of one task's bands. Deterministic unless the stopwatch ends it.

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
        self._pool: Pool | None = None
        self._selectors: dict[float, Selector] = {}
        self._amplitude = 1.0
        self._numel = 0
        self.n_evaluations = 0

    def start(self, keep: float) -> Trial:
        """The best that is found at a rate without a solution to begin with."""
        return self._improve(keep, self._first(keep), self._plan.evaluations)

    def go_on(self, keep: float, candidate: Candidate, *, from_keep: float, broken: bool) -> Trial:
        """The best that is found at a rate from the solution of another, which may be one that
        keeps next to nothing."""
        evaluations = self._plan.evaluations
        start = self.resume(keep, candidate)
        if broken or from_keep < DENSE <= keep:
            anew = self._first(keep)
            if anew.value < start.value:
                start = anew
            else:
                self._amplitude = candidate.amplitude
        return self._improve(keep, start, evaluations if broken else evaluations // 3)

    def resume(self, keep: float, candidate: Candidate) -> Trial:
        """A given candidate at a rate, evaluated."""
        self._amplitude = candidate.amplitude
        return self._trial(keep, candidate)

    def candidate(self, trial: Trial) -> Candidate:
        """What the last search's trial stands for."""
        return Candidate.from_vector(trial.x, amplitude=self._amplitude)

    def selector(self, candidate: Candidate) -> Selector:
        """That which made the candidate's last selection."""
        return self._selectors[candidate.amplitude]

    def select(self, keep: float, candidate: Candidate | None = None) -> Selection:
        """What a candidate keeps at a rate; by default the one with all weights at one."""
        self._numel = self._numel or sum(len(flat) for _, flat in self._vectors())
        n_keep = max(1, round(keep * self._numel))
        if self._pool is None or n_keep > self._pool.max_keep:
            most = self._numel if keep >= DENSE else int(np.ceil(self._spare * n_keep))
            self._selectors.clear()
            self._pool = collect(
                self._vectors,
                rule=self._rule,
                max_keep=most,
                seed=self._seed,
                device=self._device,
            )
        chosen = candidate or Candidate.neutral(self._rule.n_bands)
        if chosen.amplitude not in self._selectors:
            self._selectors = {
                chosen.amplitude: Selector(
                    self._pool.rounded(chosen.amplitude), device=self._device
                )
            }
        return self._selectors[chosen.amplitude].select(chosen, keep=n_keep)

    def _first(self, keep: float) -> Trial:
        """The best ramp over the bands, and at dense rates the best amplitude of the dither."""
        self._amplitude = 1.0
        neutral = Candidate.neutral(self._rule.n_bands)
        pool = self.select(keep).pool
        if self._objective is None or not self._rule.searched:
            return self._trial(keep, neutral)
        octaves = np.log(_band_magnitudes(pool))
        has_choice = keep >= DENSE and self._rule.dithered and self._rule.levels
        best: tuple[float, Trial] | None = None
        for amplitude in AMPLITUDES if has_choice else AMPLITUDES[:1]:
            self._amplitude = amplitude
            for tilt in TILTS:
                trial = self._trial(keep, Candidate(tuple((tilt * octaves).tolist())))
                if best is None or trial.value < best[1].value:
                    best = amplitude, trial
        if best is None:
            raise ValueError("there is no ramp to try")
        self._amplitude = best[0]
        return best[1]

    def _improve(self, keep: float, start: Trial, budget: int) -> Trial:
        if not self._rule.searched or self._objective is None or start.value <= 0:
            return start
        return minimize(
            lambda x: self._loss(keep, x),
            start,
            sigma=self._plan.sigma,
            seed=self._plan.seed + self.n_evaluations,
            max_evaluations=budget,
            good_enough=0.0,
            stopwatch=self._clock,
        )

    def _trial(self, keep: float, candidate: Candidate) -> Trial:
        vector = candidate.vector()
        if self._objective is None:
            return Trial(vector, float("nan"))
        return Trial(vector, self._loss(keep, vector))

    def _loss(self, keep: float, x: Vector) -> float:
        if self._objective is None:
            raise ValueError("nothing to evaluate without an objective")
        loss = self._objective.loss(
            self.select(keep, Candidate.from_vector(x, amplitude=self._amplitude))
        )
        self.n_evaluations += 1
        if self._report is not None:
            self._report(keep, loss, self.n_evaluations)
        return loss


def _band_magnitudes(pool: Pool) -> Vector:
    """A typical magnitude of each band, relative to the largest; empty bands are interpolated."""
    typical = np.full(pool.rule.n_bands, np.nan)
    for band in range(pool.rule.n_bands):
        magnitudes = np.abs(pool.tau[pool.band == band])
        if len(magnitudes):
            typical[band] = np.median(magnitudes)
    known = np.flatnonzero(np.isfinite(typical))
    if not len(known):
        return np.ones(pool.rule.n_bands)
    filled = np.interp(np.arange(len(typical)), known, typical[known])
    return np.asarray(filled / filled.max())
