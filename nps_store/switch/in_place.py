"""Which task's weights are in place: one switch at a time, and never half of one."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import torch

from nps_store.errors import WeightsUnsettledError
from nps_store.switch.apply import UndoLog, revert_, switch_

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nps_store.switch.resident import ResidentTask

Key = TypeVar("Key")


class InPlace(Generic[Key]):
    """The weights of one model, and who they are of; None is the base.

    Thread-safe: a switch waits until no other thread switches or holds. Reading the weights
    without `hold` is for the thread that switches.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._lock = threading.RLock()
        self._log = UndoLog(keeps_copies=True)
        self._current: Key | None = None
        self._is_settled = True
        self._n_holders = 0

    @property
    def current(self) -> Key | None:
        """Whose weights are in place.

        Raises:
            WeightsUnsettledError: A failed switch could not be reverted; the next one tries again.
        """
        if not self._is_settled:
            raise WeightsUnsettledError(
                "the weights in place are of no task: a switch failed and so did its revert; "
                "switch again, or load the model anew"
            )
        return self._current

    @property
    def copies_nbytes(self) -> int:
        """Bytes of the base's values kept for tensors that some task changed densely."""
        return self._log.copies.nbytes

    def has(self, key: Key | None) -> bool:
        """Whether the weights in place are this one's."""
        return self._is_settled and self._current is key

    def to_(self, key: Key | None, task: ResidentTask | None) -> float:
        """Put a task in place of what there is; all or nothing: a failure leaves the base.

        Args:
            key: Who it is of; None for the base.
            task: None for the base.

        Returns:
            Seconds it took, until the device was done.

        Raises:
            RuntimeError: This thread holds the weights.
        """
        with self._lock:
            if self._n_holders:
                raise RuntimeError("the weights are held; switch when that is over")
            start = time.perf_counter()
            self._is_settled = False
            try:
                if task is None:
                    revert_(self._log)
                else:
                    switch_(self._log, task)
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                self._current = key
            except BaseException:
                self._current = None
                revert_(self._log)
                self._is_settled = True
                raise
            self._is_settled = True
            return time.perf_counter() - start

    @contextmanager
    def hold(self) -> Iterator[Key | None]:
        """Keep what is in place there; other threads that switch wait."""
        with self._lock:
            self._n_holders += 1
            try:
                yield self.current
            finally:
                self._n_holders -= 1
