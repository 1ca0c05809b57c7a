"""Ways to put one task into a base that is to keep what it can do, one a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.transfer.dare import Dare
from benchmarks.transfer.grafting import Grafting
from benchmarks.transfer.interpolation import WiseFt
from benchmarks.transfer.magnitude import Magnitude
from benchmarks.transfer.model_tailor import ModelTailor

if TYPE_CHECKING:
    from benchmarks.transfer.method import TransferMethod

METHODS: dict[str, TransferMethod] = {
    method.name: method for method in (WiseFt(), Magnitude(), Dare(), Grafting(), ModelTailor())
}

__all__ = ["METHODS"]
