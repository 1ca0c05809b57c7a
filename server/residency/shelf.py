"""The versions that are in memory, the bytes they take, and how they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.residency.resident import Resident, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.residency.budget import Budget


class Shelf:
    """At most one current version a task, beside those that finish their last requests.

    Attributes:
        current: The version that new requests get.
        pinned: Tasks that room is never made from; the base (None) is always among them.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
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

    @property
    def n_ready(self) -> int:
        """Tasks that need no load."""
        return sum(r.state is State.READY and r.task is not None for r in self.current.values())

    def make_room(self, need: int) -> tuple[bool, int]:
        """Evict idle versions until `need` more bytes fit, least recently used first.

        Returns:
            Whether they fit now, and how many versions were evicted.
        """
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
        return self.used_nbytes + need <= self.budget.nbytes, len(victims)

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

    def clear(self) -> None:
        """Let go of everything."""
        self.current.clear()
        self._leaving.clear()
