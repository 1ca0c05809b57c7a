"""Ways to merge fine-tunes of one base into one body, one a file, behind one interface.

Every method is given the same `MergeProblem` and tunes its scale, and whatever else it has, on the
same calibration data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.merging.average import WeightAverage
from benchmarks.merging.consensus import ConsensusTies
from benchmarks.merging.dare import DareTies
from benchmarks.merging.fisher import Fisher
from benchmarks.merging.iso import IsoC
from benchmarks.merging.nps import NpsFusion
from benchmarks.merging.regmean import RegMean
from benchmarks.merging.task_arithmetic import TaskArithmetic
from benchmarks.merging.ties import Ties
from benchmarks.merging.wudi import Wudi
from nps_store.fusion import FusionPlan

if TYPE_CHECKING:
    from benchmarks.merging.method import MergeMethod

METHODS: dict[str, MergeMethod] = {
    method.name: method
    for method in (
        WeightAverage(),
        TaskArithmetic(),
        Ties(),
        DareTies(),
        ConsensusTies(),
        Fisher(),
        RegMean(),
        IsoC(),
        Wudi(),
        NpsFusion("NPS", FusionPlan()),
        NpsFusion("NPS, by CMA-ES", FusionPlan(steps=0, evaluations=400, groups=1)),
        NpsFusion("NPS, by CMA-ES and layer", FusionPlan(steps=0, evaluations=1600, groups=7)),
    )
}

__all__ = ["METHODS"]
