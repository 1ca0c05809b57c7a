"""The cheapest rate that meets a quality target, by continuation.

A search that starts where the model is broken finds no direction. So the rate starts where the
target is about met and moves from there, each rung starting from the last rung's solution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nps_store.search.optimizer import Stopwatch
from nps_store.search.refinement import MARGIN, Learned, Learner, Near
from nps_store.search.selection import Candidate, Selection
from nps_store.search.weights import Evaluated, Objective, Plan, WeightSearch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from torch import Tensor

    from nps_store.search.pool import TaskVectors
    from nps_store.search.rule import Rule

    Learners = Callable[[Mapping[str, Tensor]], AbstractContextManager[Learner]]

MAX_KEEP = 0.7
# The share of the gain lost falls with about this power of the rate (measured from .2 % to 2 %).
_DECAY = 0.7
_MOST_RUNGS = 12
_BROKEN = 0.5
_CLOSE = 1.15
"""Two rates closer than this factor are not told apart."""
_LEAST = 1e-9


@dataclass(frozen=True)
class Found:
    """A solution.

    Attributes:
        selection: What to store.
        keep: Its kept fraction.
        loss: On the search data; NaN where nothing was evaluated.
        check: On the check data; NaN likewise.
        learned: What another rate's selection may start from, where something was learned.
    """

    selection: Selection
    keep: float
    loss: float
    check: float
    learned: Learned | None = None

    @property
    def candidate(self) -> Candidate:
        """Its parameters."""
        return self.selection.candidate


class RateSearch:
    """Searches one task. Deterministic unless the stopwatch ends it."""

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
            device: Where the task vector is scored and selected from.
            stopwatch: Ends the search early, at the best solution so far.
            report: Called with kept fraction, best loss so far and number of evaluations.
        """
        self._rule = rule
        self._objective = objective
        self._plan = plan
        self._learners = learners
        self._clock = stopwatch or Stopwatch()
        self._weights = WeightSearch(
            vectors,
            rule,
            objective,
            plan=plan,
            seed=seed,
            spare=1.0 if learners is None else 1.1 * float(np.exp(MARGIN)),
            device=device,
            stopwatch=self._clock,
            report=report,
        )

    @property
    def n_evaluations(self) -> int:
        """Model evaluations on the search data so far."""
        return self._weights.n_evaluations

    def at_keep(self, keep: float) -> Found:
        """The best that is found at a given kept fraction."""
        return self._finish(keep, self._weights.start(keep))

    def at_quality(self, target: float) -> Found:
        """About the smallest kept fraction at which the check data keep `target` of the gain.

        Where even the largest fraction misses it, the result's `check` says so.
        """
        keep = self._plan.start_keep
        tried = self.at_keep(keep)
        best: Found | None = None
        missed: Found | None = None
        for _ in range(_MOST_RUNGS):
            if tried.check >= target:
                best = tried
            elif missed is None or tried.keep > missed.keep:
                missed = tried
            floor = tried.selection.n_kept <= 1 or self._clock.over
            if (best and floor) or (best is None and tried.keep >= MAX_KEEP):
                break
            keep = _between(missed, best, target) if best and missed else _beyond(tried, target)
            if best and best.keep < _CLOSE * keep:
                break
            evaluated = self._weights.go_on(
                keep,
                tried.candidate,
                from_keep=tried.keep,
                broken=tried.check < _BROKEN,
                learned=tried.learned is not None,
            )
            tried = self._finish(keep, evaluated, start=tried.learned)
        return best or tried

    def unsearched(self, keep: float) -> Selection:
        """What is kept at a fraction with all weights at one."""
        return self._weights.select(keep, Candidate.neutral(self._rule.n_bands))

    def resize(self, found: Found, keep: float) -> Found:
        """The same weights at a smaller kept fraction, without further search."""
        evaluated = self._weights.evaluate(keep, found.candidate)
        return self._finish(keep, evaluated, start=found.learned)

    def _finish(self, keep: float, evaluated: Evaluated, *, start: Learned | None = None) -> Found:
        """Select, learn the selection, and check both: what was learned need not hold on data that
        it was not learned from, least of all at dense rates, where little is left to gain."""
        selection = self._weights.select(keep, evaluated.candidate)
        chosen = Found(selection, keep, evaluated.loss, self._check(selection))
        can_learn = self._rule.learnable and self._plan.refinement.steps and selection.n_kept
        if self._learners is None or not can_learn:
            return chosen
        learned = self._learn(keep, selection, self._learners, start)
        found = replace(chosen, selection=learned.selection, check=self._check(learned.selection))
        best = max(found, chosen, key=lambda found: found.check)
        return replace(best, learned=learned)

    def _check(self, selection: Selection) -> float:
        return float("nan") if self._objective is None else self._objective.check(selection)

    def _learn(
        self, keep: float, selection: Selection, learners: Learners, start: Learned | None
    ) -> Learned:
        near = Near(self._weights.selector(keep, selection.candidate.amplitude), selection)
        how = self._plan.refinement
        if start is not None:
            how = how.continued(new=1 - start.selection.n_kept / selection.n_kept)
        with learners(near.positions) as learner:
            return near.learn(learner, how, start=start, stopwatch=self._clock)


def _beyond(tried: Found, target: float) -> float:
    """Where the loss should just meet the target, by its usual decay with the rate."""
    keep = tried.keep * float(
        np.clip(1.05 * (_lost(tried) / _allowed(target)) ** (1 / _DECAY), 0.3, 4.0)
    )
    return keep if tried.check >= target else min(max(keep, 1.3 * tried.keep), MAX_KEEP)


def _between(missed: Found, best: Found, target: float) -> float:
    """The same by the decay from a rate that misses the target to one that meets it. Not next to
    the first: the check is noisy."""
    decay = np.log([_lost(missed), _lost(best)])
    share = float(np.interp(-np.log(_allowed(target)), -decay, [0.0, 1.0]))
    gap = best.keep / missed.keep
    return float(missed.keep * gap ** max(share, 0.25))


def _lost(found: Found) -> float:
    return max(1 - found.check, _LEAST)


def _allowed(target: float) -> float:
    return max(1 - target, _LEAST)
