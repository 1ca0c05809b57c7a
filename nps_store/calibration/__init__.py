"""Calibration and evaluation data, and what a model's losses on them say about its quality."""

from nps_store.calibration.data import Row, class_indices, read_rows, split_rows
from nps_store.calibration.losses import Losses
from nps_store.calibration.part import Part
from nps_store.calibration.quality import Quality, gain_kept
from nps_store.calibration.runner import Examples, Runner

__all__ = [
    "Examples",
    "Losses",
    "Part",
    "Quality",
    "Row",
    "Runner",
    "class_indices",
    "gain_kept",
    "read_rows",
    "split_rows",
]
