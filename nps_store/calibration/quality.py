"""How much of a fine-tune's gain over its base an encoding keeps.

Everything is computed from outputs on the same examples under three sets of body weights: the
base's, the dense fine-tune's and the candidate's, all with the task's own head.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import bootstrap
from torch import Tensor

Float64 = NDArray[np.float64]
Measure = Literal["distill", "loss", "accuracy"]


@dataclass(frozen=True)
class Outputs:
    """A model's outputs on a set of examples.

    Attributes:
        values: float32 [n, n_labels] logits, or [n, dim] vectors.
        labels: int64 [n] class of each example, or None.
        are_logits: Whether `values` are logits.
    """

    values: Tensor
    labels: Tensor | None
    are_logits: bool

    def losses(self, measure: Measure, dense: Outputs) -> Float64:
        """Per-example loss, float64 [n]: KL from the dense outputs (cosine distance for vectors),
        cross entropy, or 0/1 error."""
        if measure == "distill":
            return _array(_divergence(dense, self))
        if self.labels is None:
            raise ValueError(f"measure {measure!r} needs labels")
        if measure == "accuracy":
            return _array((self.values.argmax(-1) != self.labels).float())
        return _array(torch.nn.functional.cross_entropy(self.values, self.labels, reduction="none"))


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


def gain_kept(
    candidate: Outputs, *, dense: Outputs, base: Outputs, measure: Measure, seed: int = 0
) -> Quality:
    """Quality of a candidate with its interval.

    Args:
        candidate: Outputs under the stored weights.
        dense: Outputs of the dense fine-tune on the same examples.
        base: Outputs of the base body with the task's head.
        measure: What to measure the gain in.
        seed: Of the bootstrap.
    """
    samples = tuple(outputs.losses(measure, dense) for outputs in (candidate, dense, base))
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


def accuracy(outputs: Outputs) -> float:
    """Share of examples whose most likely class is their label."""
    if outputs.labels is None:
        raise ValueError("accuracy needs labels")
    return float((outputs.values.argmax(-1) == outputs.labels).double().mean())


def _divergence(dense: Outputs, other: Outputs) -> Tensor:
    if not dense.are_logits:
        return 1 - torch.nn.functional.cosine_similarity(dense.values, other.values)
    expected = dense.values.double().log_softmax(-1)
    actual = other.values.double().log_softmax(-1)
    return (expected.exp() * (expected - actual)).sum(-1)


def _array(tensor: Tensor) -> Float64:
    return tensor.double().cpu().numpy()
