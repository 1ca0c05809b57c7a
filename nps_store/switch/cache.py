"""Prepared tasks, kept ready in a byte budget on the model's device and in another on the host."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from nps_store.switch.resident import ResidentTask

    Loader = Callable[[], ResidentTask]

Key = TypeVar("Key", bound="Hashable")


@dataclass(frozen=True, eq=False)
class Prepared(Generic[Key]):
    """A task that is ready to be put in place.

    Attributes:
        key: What it was asked for by; another one for another content.
        resident: Its changes, where the model lies.
    """

    key: Key
    resident: ResidentTask


class PreparedTasks(Generic[Key]):
    """The most recently used tasks of a model. One thread prepares them, one after the other.

    What is on a GPU is given up first, for what is wanted now; what lies in pinned host memory
    comes back at the speed of the bus, what lies in the file must be decoded anew.

    Attributes:
        n_prepared: Tasks read and decoded, some of them again.
        n_uploaded: Tasks that came back from the host's memory.
        n_evicted: Tasks given up for room on the device.
    """

    def __init__(self, device: torch.device, *, max_nbytes: int, max_host_nbytes: int) -> None:
        """An empty cache.

        Args:
            device: Where the model lies.
            max_nbytes: Of tasks there; the last one used is kept in any case.
            max_host_nbytes: Of copies in pinned host memory, where the device is a GPU.
        """
        self.n_prepared = self.n_uploaded = self.n_evicted = 0
        self._max_nbytes = max_nbytes
        self._max_host_nbytes = max_host_nbytes if device.type == "cuda" else 0
        # Of its own, so that what is prepared ahead does not wait for the model that runs.
        self._stream = _stream(device)
        self._tasks: OrderedDict[Key, Future[Prepared[Key]]] = OrderedDict()
        self._on_host: OrderedDict[Key, ResidentTask] = OrderedDict()
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="nps-prepare")

    @property
    def nbytes(self) -> int:
        """Resident bytes of all prepared tasks on the model's device."""
        with self._lock:
            return sum(each.resident.nbytes for each in self._ready())

    @property
    def host_nbytes(self) -> int:
        """Bytes in pinned host memory."""
        with self._lock:
            return sum(each.nbytes for each in self._on_host.values())

    def get(self, key: Key, load: Loader) -> tuple[Future[Prepared[Key]], bool]:
        """A task, now or soon, and whether it is there; what failed is tried again."""
        with self._lock:
            future = self._tasks.get(key)
            if future is None or (future.done() and (future.cancelled() or future.exception())):
                future = self._tasks[key] = self._worker.submit(self._prepare, key, load)
                return future, False
            self._tasks.move_to_end(key)
            return future, future.done()

    def make_room(self, in_use: Callable[[Prepared[Key]], bool]) -> None:
        """Give up the longest unused tasks beyond the budget, save the last and what is in use."""
        with self._lock:
            ready = self._ready()
            held = sum(each.resident.nbytes for each in ready)
            for each in ready[:-1]:
                if held > self._max_nbytes and not in_use(each):
                    del self._tasks[each.key]
                    held -= each.resident.nbytes
                    self.n_evicted += 1

    def nbytes_of(self, key: Key) -> int | None:
        """Resident bytes of a task that is prepared; None if it is not."""
        with self._lock:
            return next((each.resident.nbytes for each in self._ready() if each.key == key), None)

    def keep(self, is_wanted: Callable[[Key], bool]) -> None:
        """Forget the others."""
        with self._lock:
            for held in (self._tasks, self._on_host):
                for key in [key for key in held if not is_wanted(key)]:
                    del held[key]

    def close(self) -> None:
        """End the thread."""
        self._worker.shutdown(cancel_futures=True)

    def _prepare(self, key: Key, load: Loader) -> Prepared[Key]:
        with self._lock:
            on_host = self._on_host.get(key)
        with torch.cuda.stream(self._stream):
            resident = load() if on_host is None else on_host.resident()
        if self._stream is not None:
            self._stream.synchronize()
        if on_host is None:
            self.n_prepared += 1
            on_host = resident.pinned() if resident.nbytes <= self._max_host_nbytes else None
        else:
            self.n_uploaded += 1
        if on_host is not None:
            self._keep_on_host(key, on_host)
        return Prepared(key, resident)

    def _keep_on_host(self, key: Key, pinned: ResidentTask) -> None:
        with self._lock:
            self._on_host[key] = pinned
            self._on_host.move_to_end(key)
            held = sum(each.nbytes for each in self._on_host.values())
            while held > self._max_host_nbytes:
                _, given_up = self._on_host.popitem(last=False)
                held -= given_up.nbytes

    def _ready(self) -> list[Prepared[Key]]:
        """Prepared tasks, the longest unused first."""
        return [
            future.result()
            for future in self._tasks.values()
            if future.done() and not future.cancelled() and not future.exception()
        ]


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
