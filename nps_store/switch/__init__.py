"""Putting a task's weights into a live model and taking them out again, bit for bit."""

from nps_store.switch.apply import UndoLog, apply_, revert_
from nps_store.switch.patch import AddAll, AddAt, Patch, Replace, XorAll

__all__ = ["AddAll", "AddAt", "Patch", "Replace", "UndoLog", "XorAll", "apply_", "revert_"]
