"""Adapters as peft writes them: fine-tunes that are a few factors, stored as these factors."""

from nps_store.adapters.checkpoint import AdapterCheckpoint
from nps_store.adapters.opening import FineTuneSource, open_fine_tune

__all__ = ["AdapterCheckpoint", "FineTuneSource", "open_fine_tune"]
