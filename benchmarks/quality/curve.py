"""Means over tasks, and what a curve says between its points."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.quality.points import Point

MEASURE = {"classifiers": "accuracy_ratio"}
"""What quality means in a group; the share of the loss gain where nothing else is said."""


def measure_of(group: str) -> str:
    """Field of a point that is the quality in a group."""
    return MEASURE.get(group, "gain_kept")


@dataclass(frozen=True)
class Mean:
    """One setting of a method, averaged over the tasks of a group.

    Attributes:
        setting: Of the method.
        bits: Bits per body parameter, everything included.
        nbytes: Bytes a task.
        most_nbytes: Of the largest task.
        quality: In the group's measure.
        n_tasks: Tasks averaged over.
    """

    setting: dict[str, Any]
    bits: float
    nbytes: float
    most_nbytes: float
    quality: float
    n_tasks: int


def curves(
    points: Iterable[Point], group: str, measure: str | None = None
) -> dict[str, list[Mean]]:
    """Every method's means, by bits; settings that not every task of the group has are left out."""
    field = measure or measure_of(group)
    found: dict[tuple[str, str], list[Point]] = defaultdict(list)
    tasks = set()
    for point in points:
        if point["group"] == group:
            tasks.add(point["task"])
            found[point["method"], json.dumps(point["setting"], sort_keys=True)].append(point)
    methods: dict[str, list[Mean]] = defaultdict(list)
    for (method, _), rows in found.items():
        if len(rows) == len(tasks):
            mean = Mean(
                rows[0]["setting"],
                _mean(row["bits"] for row in rows),
                _mean(row["nbytes"] for row in rows),
                max(row["nbytes"] for row in rows),
                _mean(row[field] for row in rows),
                len(rows),
            )
            methods[method].append(mean)
    return {name: sorted(means, key=lambda m: m.bits) for name, means in methods.items()}


def frontier(means: Iterable[Mean]) -> list[Mean]:
    """The points that no other of the curve beats: quality increases with bits."""
    best: list[Mean] = []
    for mean in sorted(means, key=lambda m: (m.bits, -m.quality)):
        if not best or mean.quality > best[-1].quality:
            best.append(mean)
    return best


def bits_at(means: Iterable[Mean], quality: float) -> float | None:
    """Bits at which a curve reaches a quality, between points along the logarithm of the bits.

    Returns:
        None where it never does; the bits of its first point where that is better already.
    """
    previous = None
    for mean in frontier(means):
        if mean.quality >= quality:
            if previous is None:
                return mean.bits
            share = (quality - previous.quality) / (mean.quality - previous.quality)
            low, high = math.log(previous.bits), math.log(mean.bits)
            return math.exp(low + share * (high - low))
        previous = mean
    return None


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
