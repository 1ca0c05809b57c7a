"""The versions that are in memory, the bytes they take, and how they leave."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from server.residency.resident import Resident, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.engines import Catalog
    from server.metrics import Metrics
    from server.residency.budget import Budget


class Shelf:
    """At most one current version a task, beside those that finish their last requests.

    Attributes:
        catalog: The store's content as far as it is known.
        current: The version that new requests get.
        pinned: Tasks that room is never made from; the base (None) is always among them.
        freed: Set whenever there may be more room than before.
    """

    def __init__(self, *, catalog: Catalog, budget: Budget, metrics: Metrics) -> None:
        self.catalog = catalog
        self.budget = budget
        self._metrics = metrics
        self.freed = asyncio.Event()
        self.current: dict[str | None, Resident] = {}
        self.pinned: set[str | None] = {None}
        self._leaving: set[Resident] = set()

    def __iter__(self) -> Iterator[Resident]:
        """Every version that is not absent, the current ones first."""
        yield from self.current.values()
        yield from self._leaving

    @property
    def used_nbytes(self) -> int:
        """Bytes of tasks beside the base, those being loaded by their estimate."""
        return sum(resident.nbytes for resident in self if resident.task is not None)

    def is_current(self, resident: Resident) -> bool:
        """Whether the store still holds this very content."""
        if resident.task is None:
            return True
        info = self.catalog.tasks.get(resident.task)
        return info is not None and info.content_hash == resident.content_hash

    def changed(self) -> None:
        """Tell waiting loads and the metrics that something came, went or became idle."""
        self.freed.set()
        self._metrics.cache_bytes.set(self.used_nbytes)
        n_ready = sum(r.state is State.READY and r.task is not None for r in self.current.values())
        self._metrics.tasks_ready.set(n_ready)

    def make_room(self, need: int) -> bool:
        """Evict idle versions, least recently used first; returns whether `need` bytes fit now."""
        idle = [
            resident
            for resident in self.current.values()
            if resident.state is State.READY
            and resident.n_leases == 0
            and resident.task not in self.pinned
        ]
        victims = self.budget.victims(idle, used=self.used_nbytes, need=need)
        for victim in victims:
            self.retire(victim)
        self._metrics.evictions.inc(len(victims))
        return self.used_nbytes + need <= self.budget.nbytes

    def retire(self, resident: Resident) -> None:
        """No new requests for a ready version; its memory goes with the last lease."""
        del self.current[resident.task]
        resident.retire()
        if resident.n_leases:
            self._leaving.add(resident)

    def forget(self, resident: Resident) -> None:
        """Drop a version that holds nothing: a load that came to nothing, or a quarantine."""
        del self.current[resident.task]
        resident.nbytes = 0
        resident.move(State.ABSENT)

    def leave(self, task: str | None) -> None:
        """Retire or forget the current version of `task`, whichever it takes; loads go on."""
        resident = self.current.get(task)
        if resident is None:
            return
        if resident.state is State.READY:
            self.retire(resident)
        elif resident.state is State.FAILED:
            self.forget(resident)

    def release(self, resident: Resident) -> None:
        """Give back a lease."""
        resident.n_leases -= 1
        if resident.n_leases == 0:
            resident.drop_if_idle()
            self._leaving.discard(resident)
        self.changed()

    def clear(self) -> None:
        """Let go of everything."""
        self.current.clear()
        self._leaving.clear()
