"""Calibration and evaluation data, and what a model's outputs on them say about its quality."""

from nps_store.calibration.data import Row, read_rows, split_rows
from nps_store.calibration.quality import Outputs, Quality, accuracy, gain_kept
from nps_store.calibration.runner import Examples, Runner

__all__ = [
    "Examples",
    "Outputs",
    "Quality",
    "Row",
    "Runner",
    "accuracy",
    "gain_kept",
    "read_rows",
    "split_rows",
]
