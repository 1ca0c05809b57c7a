"""How much of a fine-tune's gain over its base an encoding keeps.

Everything is computed from losses on the same examples under three sets of body weights: the
base's, the dense fine-tune's and the candidate's, all with the task's own head.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import bootstrap

if TYPE_CHECKING:
    from nps_store.calibration.losses import Float64, Losses, Measure


@dataclass(frozen=True)
class Quality:
    """Share of the gain kept, with its 95 % bootstrap interval over the examples.

    Attributes:
        measure: What the gain is measured in.
        value: 1 is the dense fine-tune, 0 the base.
        low: Lower end of the interval.
        high: Upper end.
        n_examples: Examples measured on.
    """

    measure: Measure
    value: float
    low: float
    high: float
    n_examples: int

    def to_json(self) -> dict[str, Any]:
        """As a plain dictionary."""
        return asdict(self)


def gain_lost(losses: Float64, dense: Float64, base: Float64) -> float:
    """(L - L_dense) / (L_base - L_dense): 0 is the dense fine-tune, 1 the base.

    Where the base is no worse than the fine-tune there is no gain to lose: then the plain
    difference in loss is returned.
    """
    gain = float(base.mean() - dense.mean())
    lost = float(losses.mean() - dense.mean())
    return lost / gain if gain > 0 else lost


def gain_surely_kept(losses: Float64, dense: Float64, base: Float64) -> float:
    """The share of the gain kept, less its standard error over the examples (delta method).

    Whoever takes the cheapest of several candidates by a noisy measure takes one whose noise
    flatters it; a standard error makes up for that.
    """
    lost = gain_lost(losses, dense, base)
    gain = float(base.mean() - dense.mean())
    if len(losses) < 2:
        return 1 - lost
    residual = losses - dense - lost * (base - dense if gain > 0 else 1.0)
    error = float(residual.std(ddof=1)) / len(losses) ** 0.5
    return float(1 - lost - error / (gain if gain > 0 else 1.0))


def gain_kept(
    candidate: Losses, *, dense: Losses, base: Losses, measure: Measure, seed: int = 0
) -> Quality:
    """Quality of a candidate with its interval.

    Args:
        candidate: Losses under the stored weights.
        dense: Losses of the dense fine-tune on the same examples.
        base: Losses of the base body with the task's head.
        measure: What to measure the gain in.
        seed: Of the bootstrap.
    """
    samples = tuple(losses.of(measure) for losses in (candidate, dense, base))
    value = 1 - gain_lost(*samples)
    low = high = value
    if len(samples[0]) > 1:
        interval = bootstrap(
            samples,
            lambda c, d, b: 1 - gain_lost(c, d, b),
            paired=True,
            vectorized=False,
            n_resamples=500,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return Quality(measure, value, low, high, len(samples[0]))
