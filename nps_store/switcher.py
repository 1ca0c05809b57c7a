"""A user's own model, made any task of a store on demand."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, Self

from nps_store.bound_model import BoundModel
from nps_store.switch.cache import Prepared, PreparedTasks
from nps_store.switch.in_place import InPlace
from nps_store.switch.resident import ResidentTask
from nps_store.switch.targets import Targets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Future

    from torch import Tensor, nn

    from nps_store.store import Store
    from nps_store.switch.patch import Patch


class Bound(Protocol):
    """A model seen as the base of a store."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """What tasks are put into."""

    def pairs(self, name: str) -> Iterator[tuple[Tensor, Patch]]:
        """Live tensors and what a task does to each; each is disjoint from the others."""


DEFAULT_MAX_NBYTES = 1 << 30
DEFAULT_MAX_HOST_NBYTES = 4 << 30


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


class TaskSwitcher:
    """Puts the tasks of a store into one live model, in place; a context manager.

    The model holds the base's weights, under the base's names or with a prefix. Its tensors must
    stay where they are. On leaving, the base is in place again, bit for bit.

    Thread-safe. Whoever runs the model while other threads may switch does so within `using`.

    Attributes:
        model: The model.
        store: The store; a `refresh` of it makes prepared tasks stale.
    """

    def __init__(
        self,
        model: nn.Module,
        store: Store,
        *,
        max_nbytes: int = DEFAULT_MAX_NBYTES,
        max_host_nbytes: int = DEFAULT_MAX_HOST_NBYTES,
        bound: Bound | None = None,
    ) -> None:
        """Find the base's tensors in the model and check that they are the base's.

        Args:
            model: A model on one device.
            store: Where the tasks are.
            max_nbytes: Of prepared tasks kept for later on the model's device; the one in place is
                kept in any case.
            max_host_nbytes: Of copies in pinned host memory, for a model on a GPU.
            bound: What a task changes in the model, where it does not hold the base's tensors as
                they are; found by their names by default.

        Raises:
            BaseMismatchError: A tensor of the model is not the base's (names the first).
        """
        self.model = model
        self.store = store
        self._bound = BoundModel(model, store) if bound is None else bound
        device = next(iter(self._bound.tensors.values())).device
        self._targets = Targets(self._bound.tensors.values())
        self._in_place: InPlace[Prepared] = InPlace(device)
        self._prepared = PreparedTasks(
            device, max_nbytes=max_nbytes, max_host_nbytes=max_host_nbytes
        )
        self._generation = store.generation
        self._statistics = SwitchStatistics()
        self._lock = threading.Lock()

    @property
    def current(self) -> str | None:
        """The task in place; None for the base.

        Raises:
            WeightsUnsettledError: A failed switch could not be reverted.
        """
        return _name(self._in_place.current)

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

    def switch_(self, name: str | None) -> float:
        """Put a task in place of what is there; all or nothing: a failure leaves the base.

        Args:
            name: The task, or None for the base.

        Returns:
            Seconds of changing weights; 0.0 if the task is in place already.

        Raises:
            TaskNotFoundError: There is no such task.
            FormatError: The stored task is damaged; what was in place stays.
            UnsupportedTaskError: It does not fit this model; what was in place stays.
        """
        if name is None:
            seconds = self._in_place.to_(None, None)
            self._count(n_switches=1, n_hits=1, revert_s=seconds)
            return seconds
        future, is_hit = self._future(name)
        start = time.perf_counter()
        prepared = future.result()
        waited = time.perf_counter() - start
        if self._in_place.has(prepared):
            return 0.0
        seconds = self._in_place.to_(prepared, prepared.resident)
        self._count(n_switches=1, n_hits=int(is_hit), wait_s=waited, switch_s=seconds)
        self._prepared.make_room(self._in_place.has)
        return seconds

    @contextmanager
    def using(self, name: str | None) -> Iterator[nn.Module]:
        """The model with a task in place, which stays there until the block is left.

        Other threads' switches wait for that long. The task stays in place afterwards, until
        another is wanted.
        """
        while True:
            self.switch_(name)
            with self._in_place.hold() as current:
                if _name(current) == name:  # else another thread was faster
                    yield self.model
                    return

    def prefetch(self, *names: str) -> None:
        """Prepare tasks on another thread; errors are told when they are switched to."""
        for name in names:
            self._future(name)

    def prepare(self, name: str) -> None:
        """Have a task ready, so that a switch to it cannot fail for what is stored.

        Raises:
            TaskNotFoundError: There is no such task.
            FormatError: The stored task is damaged.
            UnsupportedTaskError: It does not fit this model.
        """
        self._future(name)[0].result()

    def close(self) -> None:
        """Revert to the base and end the thread."""
        self._prepared.close()
        self._in_place.to_(None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _future(self, name: str) -> tuple[Future[Prepared], bool]:
        """The prepared task, now or soon, and whether it is there."""
        with self._lock:
            if self._generation != self.store.generation:
                self._prepared.clear()
                self._generation = self.store.generation
            return self._prepared.get((name, self._generation), partial(self._load, name))

    def _load(self, name: str) -> ResidentTask:
        start = time.perf_counter()
        pairs = list(self._bound.pairs(name))
        decoded = time.perf_counter()
        resident = ResidentTask.of(self._targets, pairs)
        self._count(decode_s=decoded - start, pack_s=time.perf_counter() - decoded)
        self._prepared.make_room(self._in_place.has)
        return resident

    def _count(self, **more: float) -> None:
        with self._lock:
            values = {name: getattr(self._statistics, name) + by for name, by in more.items()}
            self._statistics = replace(self._statistics, **values)


def _name(prepared: Prepared | None) -> str | None:
    return None if prepared is None else prepared.key[0]
