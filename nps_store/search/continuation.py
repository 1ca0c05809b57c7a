"""The cheapest rate that meets a quality target, by continuation.

A search that starts where the model is broken finds no direction. So the rate starts where the
target is about met and moves from there, each rung starting from the last rung's solution.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nps_store.search.optimizer import Stopwatch, Trial, Vector, minimize
from nps_store.search.pool import Pool, TaskVectors, collect
from nps_store.search.refinement import MARGIN, Learner, Near, Refinement
from nps_store.search.selection import Candidate, Selection, Selector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from nps_store.search.rule import Rule

    Learners = Callable[[Mapping[str, NDArray[np.int64]]], AbstractContextManager[Learner]]

# The weights that matter most grow with magnitude: a ramp over the bands is the first guess.
TILTS = (0.0, 0.5, 1.0, 1.5)
MAX_KEEP = 0.7
# The share of the gain lost falls with about this power of the rate (measured from .2 % to 2 %).
_DECAY = 0.7
_MOST_RUNGS = 12
_BROKEN = 0.5
_CLOSE = 1.15
"""Two rates closer than this factor are not told apart."""


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
        learners: Learners | None = None,
        device: str = "cpu",
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
            learners: Makes the model's gradient at given positions of the tensors available, or
                None where the model cannot be differentiated.
            device: Where the task vector is scored.
            stopwatch: Ends the search early, at the best solution so far.
            report: Called with kept fraction, best loss so far and number of evaluations.
        """
        self._vectors = vectors
        self._rule = rule
        self._objective = objective
        self._plan = plan
        self._seed = seed
        self._learners = learners
        self._device = device
        self._clock = stopwatch or Stopwatch()
        self._report = report
        self._selector: Selector | None = None
        self._numel = 0
        self.n_evaluations = 0

    def at_keep(self, keep: float) -> Found:
        """The best that is found at a given kept fraction."""
        trial = self._first(keep)
        return self._finish(keep, self._improve(keep, trial, self._plan.evaluations))

    def at_quality(self, target: float) -> Found:
        """About the smallest kept fraction at which the check data keep `target` of the gain.

        Where even the largest fraction misses it, the result's `check` says so.
        """
        keep = self._plan.start_keep
        tried = self._finish(keep, self._improve(keep, self._first(keep), self._plan.evaluations))
        best: Found | None = None
        missed = 0.0
        for _ in range(_MOST_RUNGS):
            if tried.check >= target:
                best = tried
            else:
                missed = max(missed, tried.keep)
            floor = tried.selection.n_kept <= 1 or self._clock.over
            if (best and floor) or (best is None and missed >= MAX_KEEP):
                break
            keep = self._next_keep(tried, best, missed, target)
            if best and best.keep < _CLOSE * max(keep, missed):
                break
            tried = self._finish(keep, self._from(tried, keep))
        return best or tried

    def unsearched(self, keep: float) -> Selection:
        """What is kept at a fraction with all weights at one."""
        return self._select(keep)

    def resize(self, found: Found, keep: float) -> Found:
        """The same weights at a smaller kept fraction, without further search."""
        return self._finish(keep, Trial(found.candidate.vector(), float("nan")))

    def _next_keep(self, tried: Found, best: Found | None, missed: float, target: float) -> float:
        """Where the loss should just meet the target, by its usual decay with the rate."""
        ratio = max((1 - tried.check) / max(1 - target, 1e-9), 1e-3)
        keep = tried.keep * float(np.clip(1.05 * ratio ** (1 / _DECAY), 0.3, 4.0))
        if best and missed:
            gap = best.keep / missed
            return float(np.clip(keep, missed * gap**0.25, missed * gap**0.75))
        if best:
            return keep
        return min(max(keep, 1.3 * tried.keep), MAX_KEEP)

    def _from(self, tried: Found, keep: float) -> Trial:
        """The best weights at another rate, from a solution that may be a broken one."""
        start, evaluations = self._trial(keep, tried.candidate), self._plan.evaluations
        if tried.check < _BROKEN:
            start = min(start, self._first(keep), key=lambda trial: trial.value)
            return self._improve(keep, start, evaluations)
        return self._improve(keep, start, evaluations // 3)

    def _finish(self, keep: float, trial: Trial) -> Found:
        """Select, learn the selection, and check it."""
        candidate = Candidate.from_vector(trial.x)
        selection = self._refine(self._select(keep, candidate))
        check = float("nan") if self._objective is None else self._objective.check(selection)
        return Found(selection, candidate, keep, trial.value, check)

    def _refine(self, selection: Selection) -> Selection:
        how = self._plan.refinement
        if self._learners is None or self._selector is None or not how.steps:
            return selection
        if not self._rule.searched or selection.levels is None or not selection.n_kept:
            return selection
        near = Near(self._selector, selection)
        with self._learners(near.positions) as learner:
            return near.learn(learner, how, stopwatch=self._clock)

    def _first(self, keep: float) -> Trial:
        """The best ramp over the bands."""
        pool = self._select(keep).pool
        neutral = Candidate.neutral(self._rule.n_bands)
        if self._objective is None or not self._rule.searched:
            return self._trial(keep, neutral)
        octaves = np.log(_band_magnitudes(pool))
        ramps = [Candidate(tuple((tilt * octaves).tolist())) for tilt in TILTS]
        return min((self._trial(keep, ramp) for ramp in ramps), key=lambda trial: trial.value)

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
        loss = self._objective.loss(self._select(keep, Candidate.from_vector(x)))
        self.n_evaluations += 1
        if self._report is not None:
            self._report(keep, loss, self.n_evaluations)
        return loss

    def _select(self, keep: float, candidate: Candidate | None = None) -> Selection:
        self._numel = self._numel or sum(len(flat) for _, flat in self._vectors())
        n_keep = max(1, round(keep * self._numel))
        if self._selector is None or n_keep > self._selector.pool.max_keep:
            spare = np.exp(MARGIN) if self._learners is not None else 1.0
            most = int(np.ceil(1.1 * spare * n_keep))
            pool = collect(
                self._vectors,
                rule=self._rule,
                max_keep=most,
                seed=self._seed,
                device=self._device,
            )
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
