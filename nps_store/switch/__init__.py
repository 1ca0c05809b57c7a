"""Putting a task's weights into a live model and taking them out again, bit for bit."""

from nps_store.switch.apply import UndoLog, apply_, revert_, switch_
from nps_store.switch.factors import AddProduct, Multiply
from nps_store.switch.patch import AddAll, AddAt, Patch, Replace, XorAll
from nps_store.switch.resident import ResidentTask
from nps_store.switch.sparse import BlockIndex, SparseDelta
from nps_store.switch.targets import Targets
from nps_store.switch.written import warm_up

__all__ = [
    "AddAll",
    "AddAt",
    "AddProduct",
    "BlockIndex",
    "Multiply",
    "Patch",
    "Replace",
    "ResidentTask",
    "SparseDelta",
    "Targets",
    "UndoLog",
    "XorAll",
    "apply_",
    "revert_",
    "switch_",
    "warm_up",
]
