"""From values to places on an axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Stretch = Callable[[float], float]


@dataclass(frozen=True)
class Scale:
    """One axis.

    Attributes:
        low: Value at its start; what is less is drawn there.
        high: Value at its end.
        stretch: What is even along the axis: the logarithm of a value, for one.
        ticks: Values that are labelled, with their labels.
    """

    low: float
    high: float
    stretch: Stretch
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        """0 at the start, 1 at the end."""
        low, high = self.stretch(self.low), self.stretch(self.high)
        held = self.stretch(min(max(value, self.low), self.high))
        return (held - low) / (high - low)


def logarithmic(values: Sequence[float], *, unit: str = "") -> Scale:
    """Around positive values, with ticks at 1, 2 and 5, or at powers of ten of a long axis."""
    low, high = min(values), max(values)
    low, high = (low / 1.3, high * 1.3) if high > low else (low / 2, high * 2)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if math.log10(high / low) < 2.3 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    inside = [tick for tick in ticks if low <= tick <= high]
    return Scale(low, high, math.log10, tuple((tick, f"{tick:g}{unit}") for tick in inside))


def quality(values: Sequence[float]) -> Scale:
    """Shares up to 1: equal distances for equal ratios of what is lost."""
    low = min(max(min(values), 0.3), 0.9)
    known = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
    ticks = [(tick, f"{tick:g}") for tick in known if tick > low]
    return Scale(low, 0.9995, lambda share: -math.log10(1 - share), (*ticks, (0.9995, "all")))


def percentiles(values: Sequence[float]) -> Scale:
    """Shares of a distribution, its two tails as wide as its middle."""
    known = ((0.001, "p0.1"), (0.01, "p1"), (0.1, "p10"), (0.5, "p50"), (0.9, "p90"),
             (0.99, "p99"), (0.999, "p99.9"))  # fmt: skip
    low, high = min(values), max(values)
    ticks = tuple((share, name) for share, name in known if low <= share <= high)
    return Scale(low, high, lambda share: math.log(share / (1 - share)), ticks)
