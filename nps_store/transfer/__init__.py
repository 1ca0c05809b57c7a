"""Searching how much of a task to put into a base that is to keep what it can do (the paper's
transfer)."""

from nps_store.transfer.live import LiveTransfer
from nps_store.transfer.search import TransferPlan, Transferred, transfer

__all__ = ["LiveTransfer", "TransferPlan", "Transferred", "transfer"]
