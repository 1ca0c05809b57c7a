"""Which request arrives when, and whose it is; drawn before the first one is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MIXES = ("zipf", "uniform", "one")


@dataclass(frozen=True)
class Planned:
    """One request.

    Attributes:
        at_s: When it arrives, from the start.
        model: Whom it asks.
        text: What it asks.
    """

    at_s: float
    model: str
    text: str


def popularity(mix: str, n_tasks: int) -> NDArray[np.float64]:
    """Each task's share of the requests: by Zipf's law, alike, or all of the first."""
    if mix == "uniform":
        return np.full(n_tasks, 1 / n_tasks)
    if mix == "one":
        return np.eye(1, n_tasks)[0]
    weights = 1 / np.arange(1, n_tasks + 1)
    return weights / weights.sum()


def plan(
    models: Sequence[str], texts: Sequence[str], *, mix: str, rate: float, seconds: float, seed: int
) -> list[Planned]:
    """Poisson arrivals, in order; the same for the same arguments.

    Args:
        models: Tasks; the first is the most popular.
        texts: What is asked, at random.
        mix: One of `MIXES`.
        rate: Arrivals a second, on average.
        seconds: How long requests arrive.
        seed: Of everything.
    """
    rng = np.random.default_rng(seed)
    n = rng.poisson(rate * seconds)
    arrivals = np.sort(rng.uniform(0, seconds, n))  # a Poisson process, given its count
    whose = rng.choice(len(models), n, p=popularity(mix, len(models)))
    asked = rng.integers(len(texts), size=n)
    return [
        Planned(float(at), models[task], texts[text])
        for at, task, text in zip(arrivals, whose, asked, strict=True)
    ]
