"""Searching how much of each task a merged one shall have (the paper's fusion)."""

from nps_store.fusion.live import LiveMerge
from nps_store.fusion.search import Fused, FusionPlan, fuse

__all__ = ["Fused", "FusionPlan", "LiveMerge", "fuse"]
