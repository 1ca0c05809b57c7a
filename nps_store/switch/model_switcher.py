"""One live model that is switched among prepared tasks; what a task is, is said by its user."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from nps_store.switch.cache import Prepared, PreparedTasks
from nps_store.switch.in_place import InPlace
from nps_store.switch.resident import ResidentTask
from nps_store.switch.targets import Targets
from nps_store.switch.written import warm_up

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
    from concurrent.futures import Future

    from torch import Tensor

    from nps_store.switch.patch import Patch

DEFAULT_MAX_NBYTES = 1 << 30
DEFAULT_MAX_HOST_NBYTES = 4 << 30

Key = TypeVar("Key", bound="Hashable")


@dataclass(frozen=True)
class SwitchStatistics:
    """What a switcher did since it was made.

    Attributes:
        n_switches: Switches that changed weights.
        n_hits: Of these, those to a task that was prepared already (or to the base).
        n_prepared: Tasks read and decoded, some of them again.
        n_uploaded: Tasks that came back from pinned host memory.
        n_evicted: Prepared tasks given up for room.
        prepared_nbytes: Bytes of all prepared tasks on the model's device now.
        host_nbytes: Bytes of copies in pinned host memory.
        copies_nbytes: Bytes of the base's values kept for tensors that a task changes densely: it
            is restored from them, which is faster than from a log of a large part of it.
        decode_s: Seconds of reading, verifying and decoding.
        pack_s: Seconds of packing and moving to the device.
        wait_s: Seconds that switches waited for a preparation.
        revert_s: Seconds of switches to the base.
        switch_s: Seconds of switches to a task: the revert of the one before and the apply are one
            pass.
    """

    n_switches: int = 0
    n_hits: int = 0
    n_prepared: int = 0
    n_uploaded: int = 0
    n_evicted: int = 0
    prepared_nbytes: int = 0
    host_nbytes: int = 0
    copies_nbytes: int = 0
    decode_s: float = 0.0
    pack_s: float = 0.0
    wait_s: float = 0.0
    revert_s: float = 0.0
    switch_s: float = 0.0


class ModelSwitcher(Generic[Key]):
    """Puts tasks, by keys of the user's own, into live tensors that hold the base; thread-safe.

    The tensors must stay where they are.
    """

    def __init__(
        self,
        tensors: Collection[Tensor],
        changes: Callable[[Key], Iterable[tuple[Tensor, Patch]]],
        *,
        max_nbytes: int,
        max_host_nbytes: int,
    ) -> None:
        """The base is in place.

        Args:
            tensors: Of the model, on one device.
            changes: Live tensors and what a task does to each; each is disjoint from the others.
                Called on another thread.
            max_nbytes: Of prepared tasks kept for later on the model's device; the one in place is
                kept in any case, as are those that are pinned.
            max_host_nbytes: Of copies in pinned host memory, for a model on a GPU.
        """
        device = next(iter(tensors)).device
        self._changes = changes
        self._targets = Targets(tensors)
        self._in_place: InPlace[Prepared[Key]] = InPlace(device)
        self._prepared: PreparedTasks[Key] = PreparedTasks(
            device, max_nbytes=max_nbytes, max_host_nbytes=max_host_nbytes
        )
        self._pinned: set[Key] = set()
        self._statistics = SwitchStatistics()
        self._lock = threading.Lock()

    @property
    def current(self) -> Key | None:
        """The task in place; None for the base.

        Raises:
            WeightsUnsettledError: A failed switch could not be reverted.
        """
        return _key(self._in_place.current)

    @property
    def statistics(self) -> SwitchStatistics:
        """Counts and seconds so far."""
        prepared = self._prepared
        with self._lock:
            return replace(
                self._statistics,
                n_prepared=prepared.n_prepared,
                n_uploaded=prepared.n_uploaded,
                n_evicted=prepared.n_evicted,
                prepared_nbytes=prepared.nbytes,
                host_nbytes=prepared.host_nbytes,
                copies_nbytes=self._in_place.copies_nbytes,
            )

    def warm_up(self) -> None:
        """Compile the loops now, or load what was compiled before, and not at the first switch."""
        warm_up(self._targets)

    def switch_(self, key: Key | None) -> float:
        """Put a task in place of what is there; all or nothing: a failure leaves the base, and
        what could not be prepared leaves what was there.

        Args:
            key: The task, or None for the base.

        Returns:
            Seconds of changing weights; 0.0 if the task is in place already.
        """
        if key is None:
            seconds = self._in_place.to_(None, None)
            self._count(n_switches=1, n_hits=1, revert_s=seconds)
            return seconds
        future, is_hit = self.prepare(key)
        start = time.perf_counter()
        prepared = future.result()
        waited = time.perf_counter() - start
        if self._in_place.has(prepared):
            return 0.0
        seconds = self._in_place.to_(prepared, prepared.resident)
        self._count(n_switches=1, n_hits=int(is_hit), wait_s=waited, switch_s=seconds)
        self._make_room()
        return seconds

    @contextmanager
    def using(self, key: Key | None) -> Iterator[None]:
        """Have a task in place until the block is left; other threads' switches wait for that
        long. It stays there afterwards, until another is wanted."""
        while True:
            self.switch_(key)
            with self._in_place.hold() as current:
                if _key(current) == key:  # else another thread was faster
                    yield
                    return

    def prepare(self, key: Key) -> tuple[Future[Prepared[Key]], bool]:
        """Begin to have a task ready, on another thread, and say whether it is so already; the
        future raises what is wrong with it."""
        return self._prepared.get(key, partial(self._load, key))

    def prepared_nbytes(self, key: Key) -> int | None:
        """Bytes of a task that is ready on the model's device; None if it is not."""
        return self._prepared.nbytes_of(key)

    def pin(self, key: Key, *, is_pinned: bool = True) -> None:
        """Keep a task once it is prepared, whatever room it takes, or no longer."""
        (self._pinned.add if is_pinned else self._pinned.discard)(key)
        self._make_room()

    def keep(self, is_wanted: Callable[[Key], bool]) -> None:
        """Forget prepared tasks that will not be asked for again."""
        self._prepared.keep(is_wanted)

    def close(self) -> None:
        """Revert to the base and end the thread."""
        self._prepared.close()
        self._in_place.to_(None, None)

    def _load(self, key: Key) -> ResidentTask:
        start = time.perf_counter()
        pairs = list(self._changes(key))
        decoded = time.perf_counter()
        resident = ResidentTask.of(self._targets, pairs)
        self._count(decode_s=decoded - start, pack_s=time.perf_counter() - decoded)
        self._make_room()
        return resident

    def _make_room(self) -> None:
        self._prepared.make_room(lambda p: p.key in self._pinned or self._in_place.has(p))

    def _count(self, **more: float) -> None:
        with self._lock:
            values = {name: getattr(self._statistics, name) + by for name, by in more.items()}
            self._statistics = replace(self._statistics, **values)


def _key(prepared: Prepared[Key] | None) -> Key | None:
    return None if prepared is None else prepared.key
