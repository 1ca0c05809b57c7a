"""From fine-tune directories to tasks in a store."""

from nps_store.compress.job import add, compress
from nps_store.compress.options import Options, Progress, Silent, TaskSource

__all__ = ["Options", "Progress", "Silent", "TaskSource", "add", "compress"]
