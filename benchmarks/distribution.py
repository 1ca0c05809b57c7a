"""How measured values are distributed; a mean alone hides what users wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

PERCENTILES = (0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)


def distribution(values: Iterable[float]) -> dict[str, float]:
    """Percentiles p0.1 to p99.9, least, most, mean and number; only the number of nothing."""
    held = np.fromiter(values, np.float64)
    if not held.size:
        return {"n": 0}
    points = zip(PERCENTILES, np.percentile(held, PERCENTILES).tolist(), strict=True)
    return {
        "n": held.size,
        "mean": float(held.mean()),
        "min": float(held.min()),
        **{f"p{percent:g}": value for percent, value in points},
        "max": float(held.max()),
    }
