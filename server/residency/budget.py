"""How many bytes resident tasks may occupy, and who leaves first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.errors import ResidencyConflictError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from server.residency.resident import Resident

_DEFAULT_FLOOR_NBYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes for tasks beside the base.

    Attributes:
        nbytes: The limit. Bytes in use by requests are never taken away; loads wait for them.
        copies: Whether a task may be given its own copy of the body.
        wait_s: Seconds that a load may wait for room.
    """

    nbytes: int
    copies: bool = False
    wait_s: float = 30.0

    @classmethod
    def of(cls, nbytes: int | None, *, base_nbytes: int, wait_s: float) -> Budget:
        """The budget that a setting means; None is patches only, within the base's own size."""
        if nbytes is None:
            return cls(max(base_nbytes, _DEFAULT_FLOOR_NBYTES), copies=False, wait_s=wait_s)
        return cls(nbytes, copies=True, wait_s=wait_s)

    def check(self, name: str, nbytes: int) -> None:
        """Raise ResidencyConflictError where `nbytes` can never fit."""
        if nbytes > self.nbytes:
            raise ResidencyConflictError(
                f"task {name!r} needs {nbytes} bytes in memory and the memory budget is "
                f"{self.nbytes}; serve with a larger --memory-budget"
            )

    def victims(self, idle: Iterable[Resident], *, used: int, need: int) -> list[Resident]:
        """The idle residents to evict so that `need` more bytes fit, least recently used first."""
        excess = used + need - self.nbytes
        chosen: list[Resident] = []
        for resident in sorted(idle, key=lambda r: r.used_at):
            if excess <= 0:
                break
            excess -= resident.nbytes
            chosen.append(resident)
        return chosen
