"""The cheapest rate that meets a quality target, by continuation.

A search that starts where the model is broken finds no direction. So the rate starts where the
target is surely met and shrinks, each rung starting from the last rung's solution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nps_store.search.optimizer import Stopwatch, Trial, Vector, minimize
from nps_store.search.pool import Pool, TaskVectors, collect
from nps_store.search.selection import Candidate, Selection, Selector

if TYPE_CHECKING:
    from collections.abc import Callable

    from nps_store.search.rule import Rule

# The weights that matter most grow with magnitude: a ramp over the bands is the first guess.
TILTS = (0.0, 0.5, 1.0, 1.5)
MAX_KEEP = 0.7


class Objective(Protocol):
    """What the search knows of model and data."""

    def loss(self, selection: Selection) -> float:
        """Share of the fine-tune's gain that is lost on the search data: 0 is the dense fine-tune,
        1 the base."""

    def check(self, selection: Selection) -> float:
        """Share of the gain kept on data that `loss` does not see."""


@dataclass(frozen=True)
class Plan:
    """How long to search and where.

    Attributes:
        evaluations: Model evaluations a rung, at most (half of them where there is no need).
        sigma: First standard deviation of the log weights.
        start_keep: First kept fraction.
        shrink: Factor from rung to rung.
        seed: Of the search and of the dither.
    """

    evaluations: int = 60
    sigma: float = 0.4
    start_keep: float = 0.01
    shrink: float = 0.7
    seed: int = 0


@dataclass(frozen=True)
class Found:
    """A solution.

    Attributes:
        selection: What to store.
        candidate: Its parameters.
        keep: Its kept fraction.
        loss: On the search data; NaN where nothing was evaluated.
        check: On the check data; NaN likewise.
    """

    selection: Selection
    candidate: Candidate
    keep: float
    loss: float
    check: float


class RateSearch:
    """Searches one task. Deterministic unless the stopwatch ends it.

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
        stopwatch: Stopwatch | None = None,
        report: Callable[[float, float, int], None] | None = None,
    ) -> None:
        """Prepare a search.

        Args:
            vectors: The task vector.
            rule: How elements are selected.
            objective: None to select without looking at any data.
            plan: How long and where to search.
            seed: Names the dither; different for every task.
            stopwatch: Ends the search early, at the best solution so far.
            report: Called with kept fraction, best loss so far and number of evaluations.
        """
        self._vectors = vectors
        self._rule = rule
        self._objective = objective
        self._plan = plan
        self._seed = seed
        self._clock = stopwatch or Stopwatch()
        self._report = report
        self._selector: Selector | None = None
        self._numel = 0
        self.n_evaluations = 0

    def at_keep(self, keep: float) -> Found:
        """The best candidate at a given kept fraction."""
        start = self._first(keep)
        if self._objective is None:
            return self._found(keep, start, check=float("nan"))
        trial = self._improve(keep, start, 3 * self._plan.evaluations, good_enough=0.0)
        return self._found(keep, trial, check=self._check(keep, trial))

    def at_quality(self, target: float) -> Found:
        """The smallest kept fraction at which the check data keep `target` of the gain.

        Where even the largest fraction misses it, the result's `check` says so.
        """
        keep = self._plan.start_keep
        found = self._rung(keep, self._first(keep), target)
        while found.check < target and keep < MAX_KEEP:
            keep = min(2 * keep, MAX_KEEP)
            found = self._rung(keep, self._first(keep), target)
        if found.check < target:
            return found
        factor = self._plan.shrink
        while factor < 0.9 and not self._clock.over and found.selection.n_kept > 1:
            keep = found.keep * factor
            tried = self._rung(keep, self._trial(keep, found.candidate), target)
            if tried.check >= target:
                found = tried
            else:
                factor = factor**0.5
        return found

    def unsearched(self, keep: float) -> Selection:
        """What is kept at a fraction with all weights at one."""
        return self._select(keep)

    def resize(self, found: Found, keep: float) -> Found:
        """The same candidate at a smaller kept fraction, without further search."""
        trial = Trial(found.candidate.vector(), float("nan"))
        return self._found(keep, trial, check=float("nan"))

    def _rung(self, keep: float, start: Trial, target: float) -> Found:
        """Search at one rate, only as long as it promises to reach the target."""
        budget = self._plan.evaluations
        trial = self._improve(keep, start, budget, good_enough=0.5 * (1 - target))
        found = self._found(keep, trial, check=self._check(keep, trial))
        if found.check < target and trial.value < 2 * (1 - target):
            trial = self._improve(keep, trial, budget, good_enough=0.0)
            found = self._found(keep, trial, check=self._check(keep, trial))
        return found

    def _first(self, keep: float) -> Trial:
        """The best ramp over the bands."""
        pool = self._select(keep).pool
        neutral = Candidate.neutral(self._rule.n_bands)
        if self._objective is None or not self._rule.searched:
            return self._trial(keep, neutral)
        octaves = np.log(_band_magnitudes(pool))
        ramps = [Candidate(tuple((tilt * octaves).tolist())) for tilt in TILTS]
        return min((self._trial(keep, ramp) for ramp in ramps), key=lambda trial: trial.value)

    def _improve(self, keep: float, start: Trial, budget: int, *, good_enough: float) -> Trial:
        if not self._rule.searched or start.value <= good_enough:
            return start
        return minimize(
            lambda x: self._loss(keep, x),
            start,
            sigma=self._plan.sigma,
            seed=self._plan.seed + self.n_evaluations,
            max_evaluations=budget,
            good_enough=good_enough,
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
        loss = self._objective.loss(self._select(keep, Candidate.from_vector(x)))
        self.n_evaluations += 1
        if self._report is not None:
            self._report(keep, loss, self.n_evaluations)
        return loss

    def _check(self, keep: float, trial: Trial) -> float:
        if self._objective is None:
            return float("nan")
        return self._objective.check(self._select(keep, Candidate.from_vector(trial.x)))

    def _found(self, keep: float, trial: Trial, *, check: float) -> Found:
        candidate = Candidate.from_vector(trial.x)
        return Found(self._select(keep, candidate), candidate, keep, trial.value, check)

    def _select(self, keep: float, candidate: Candidate | None = None) -> Selection:
        self._numel = self._numel or sum(len(flat) for _, flat in self._vectors())
        n_keep = max(1, round(keep * self._numel))
        if self._selector is None or n_keep > self._selector.pool.max_keep:
            pool = collect(self._vectors, rule=self._rule, max_keep=n_keep, seed=self._seed)
            self._selector = Selector(pool)
        return self._selector.select(
            candidate or Candidate.neutral(self._rule.n_bands), keep=n_keep
        )


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
