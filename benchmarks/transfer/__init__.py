"""Ways to put one task into a base that is to keep what it can do, one a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.transfer.dare import Dare
from benchmarks.transfer.grafting import Grafting
from benchmarks.transfer.interpolation import WiseFt
from benchmarks.transfer.magnitude import Magnitude
from benchmarks.transfer.model_tailor import ModelTailor
from benchmarks.transfer.nps import NpsTransfer
from nps_store.transfer import TransferPlan

if TYPE_CHECKING:
    from benchmarks.transfer.method import TransferMethod

METHODS: dict[str, TransferMethod] = {
    method.name: method
    for method in (
        WiseFt(),
        Magnitude(),
        Dare(),
        Grafting(),
        ModelTailor(),
        NpsTransfer("NPS", TransferPlan(evaluations=200), labelled=True),
        NpsTransfer("NPS, by layer", TransferPlan(evaluations=600, groups=7), labelled=True),
        NpsTransfer("NPS, without labels", TransferPlan(evaluations=200)),
    )
}

__all__ = ["METHODS"]
