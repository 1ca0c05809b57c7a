"""Hugging Face models that share one resident body and have its weights switched in place."""

from nps_store.modeling.body import Body
from nps_store.modeling.live import LiveBase, PreparedTask
from nps_store.modeling.shell import Shell

__all__ = ["Body", "LiveBase", "PreparedTask", "Shell"]
