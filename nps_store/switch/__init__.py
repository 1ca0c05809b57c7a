"""Putting a task's weights into a live model and taking them out again, bit for bit."""

from nps_store.switch.apply import UndoLog, apply_, revert_, switch_
from nps_store.switch.patch import AddAll, AddAt, Patch, Replace, XorAll
from nps_store.switch.plan import Plan
from nps_store.switch.resident import BlockIndex, SparseDelta

__all__ = [
    "AddAll",
    "AddAt",
    "BlockIndex",
    "Patch",
    "Plan",
    "Replace",
    "SparseDelta",
    "UndoLog",
    "XorAll",
    "apply_",
    "revert_",
    "switch_",
]
