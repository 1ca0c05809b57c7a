"""One part of the calibration data, on which any weights can be told between base and dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nps_store.calibration.quality import Quality, gain_kept, gain_lost, gain_surely_kept

if TYPE_CHECKING:
    from nps_store.calibration.losses import Losses, Measure
    from nps_store.calibration.runner import Runner


@dataclass(frozen=True)
class Part:
    """Examples with the losses that frame all others on them.

    Attributes:
        runner: Runs the model on the examples.
        dense: Losses of the dense fine-tune.
        base: Losses of the base's body with the task's head.
    """

    runner: Runner
    dense: Losses
    base: Losses

    def gain(self, measure: Measure) -> float:
        """What the fine-tune gains over the base."""
        return float(self.base.of(measure).mean() - self.dense.of(measure).mean())

    def gain_lost(self, measure: Measure) -> float:
        """Share of the gain that the weights in place lose."""
        three = (self.runner(), self.dense, self.base)
        return gain_lost(*(losses.of(measure) for losses in three))

    def gain_surely_kept(self, measure: Measure) -> float:
        """Share of the gain that they keep, less its standard error."""
        three = (self.runner(), self.dense, self.base)
        return gain_surely_kept(*(losses.of(measure) for losses in three))

    def quality(self, measure: Measure, *, seed: int) -> Quality:
        """Share of the gain that they keep, with its interval."""
        candidate = self.runner()
        return gain_kept(candidate, dense=self.dense, base=self.base, measure=measure, seed=seed)
