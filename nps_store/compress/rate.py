"""How much of a task vector to keep: by target, by fraction or by bytes."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from nps_store.compress.encode import dither_of
from nps_store.compress.options import DEFAULT_TARGETS, SAFE_KEEP, Options, Progress
from nps_store.errors import BudgetTooSmallError
from nps_store.search import (
    MAX_KEEP,
    RULES,
    Found,
    Plan,
    RateSearch,
    Refinement,
    Selection,
    Stopwatch,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from nps_store.compress.calibrate import Calibration
    from nps_store.compress.fine_tune import FineTune
    from nps_store.search import Learner

MIN_KEEP = 1e-5
"""No budget is worth going below: a handful of elements a layer."""


@dataclass(frozen=True)
class Choice:
    """What to keep, the target that was in force, and how many evaluations it took."""

    found: Found
    target: float | None
    n_evaluations: int


def choose(
    fine_tune: FineTune,
    calibration: Calibration | None,
    options: Options,
    *,
    nbytes_of: Callable[[Selection], int],
    progress: Progress,
) -> Choice:
    """Decide what to keep.

    Args:
        fine_tune: The task.
        calibration: Its live model, or None where there are no data.
        options: What the user asked.
        nbytes_of: Bytes that a selection takes in a store, everything included.
        progress: Told of trials and of an early end.

    Raises:
        BudgetTooSmallError: Not even the smallest selection fits `max_nbytes`.
    """
    search = RateSearch(
        partial(fine_tune.vectors, device=options.device),
        RULES[options.method],
        calibration,
        plan=Plan(
            evaluations=options.evaluations,
            refinement=Refinement(steps=options.steps),
            seed=options.seed,
        ),
        seed=dither_of(fine_tune.name, options.seed),
        learners=None
        if calibration is None
        else partial(_learner, calibration, fine_tune.name, progress),
        device=options.device,
        stopwatch=Stopwatch(options.search_seconds),
        report=lambda keep, loss, count: progress.trial(fine_tune.name, keep, loss, count),
    )
    target = options.target
    if options.max_nbytes is not None:
        found = _within(search, options.max_nbytes, nbytes_of)
    elif options.keep is not None:
        found = search.at_keep(options.keep)
    elif calibration is None:
        progress.note(fine_tune.name, f"no calibration data: the safe rate {SAFE_KEEP:g} is kept")
        found = search.at_keep(SAFE_KEEP)
    else:
        target = target or DEFAULT_TARGETS[calibration.measure]
        found = search.at_quality(target)
    return Choice(found, target, search.n_evaluations)


@contextmanager
def _learner(
    calibration: Calibration, task: str, progress: Progress, positions: Mapping[str, Tensor]
) -> Iterator[Learner]:
    """The calibration's, with the stages told."""
    progress.stage(task, "learn")
    with calibration.learner(positions) as learner:
        yield learner
    progress.stage(task, "search")


def _within(search: RateSearch, budget: int, nbytes_of: Callable[[Selection], int]) -> Found:
    """The richest rate within a byte budget: sized unsearched, searched, then made to fit, since a
    learned selection is dearer to code."""
    keep = _keep_for(search.unsearched, budget, nbytes_of)
    found = search.at_keep(keep)
    while (nbytes := nbytes_of(found.selection)) > budget:
        keep *= min(0.99, 0.99 * budget / nbytes)
        if keep < MIN_KEEP:
            raise _too_small(budget, nbytes)
        found = search.resize(found, keep)
    return found


def _keep_for(
    select: Callable[[float], Selection], budget: int, nbytes_of: Callable[[Selection], int]
) -> float:
    """The largest fraction that fits, approached from below: the pool grows with the fraction."""
    least = nbytes_of(select(MIN_KEEP))
    if least > budget:
        raise _too_small(budget, least)
    low, high = MIN_KEEP, 4 * MIN_KEEP
    while nbytes_of(select(high)) <= budget:
        low, high = high, 4 * high
        if high > MAX_KEEP:
            return low
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        if nbytes_of(select(middle)) <= budget:
            low = middle
        else:
            high = middle
    return low


def _too_small(budget: int, least: int) -> BudgetTooSmallError:
    return BudgetTooSmallError(
        f"no encoding of the task fits {budget} bytes: its head, files and index alone with a few "
        f"kept elements take {least}; give a larger --max-bytes"
    )
