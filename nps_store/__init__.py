"""NPS Store: compressed storage and serving for many full fine-tunes of one base model.

Importing this package loads nothing heavy; the names below are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nps_store.compress import Options, TaskSource
    from nps_store.export import export_task
    from nps_store.modeling import LiveBase, PreparedTask
    from nps_store.module_search import search_module
    from nps_store.store import Store
    from nps_store.switcher import TaskSwitcher
    from nps_store.task import Task

__all__ = [
    "LiveBase",
    "Options",
    "PreparedTask",
    "Store",
    "Task",
    "TaskSource",
    "TaskSwitcher",
    "export_task",
    "search_module",
]

_HOME = {
    "LiveBase": "nps_store.modeling",
    "Options": "nps_store.compress",
    "PreparedTask": "nps_store.modeling",
    "Store": "nps_store.store",
    "Task": "nps_store.task",
    "TaskSource": "nps_store.compress",
    "TaskSwitcher": "nps_store.switcher",
    "export_task": "nps_store.export",
    "search_module": "nps_store.module_search",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
