"""One version of one task in memory, as an explicit state machine."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from server.engines import PreparedTask


class State(enum.StrEnum):
    """Where a version of a task is in its life. A task of the store without a version is absent."""

    ABSENT = "absent"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


_SUCCESSORS = {
    State.ABSENT: {State.LOADING},
    State.LOADING: {State.READY, State.FAILED, State.ABSENT},
    State.READY: {State.DRAINING, State.FAILED},
    State.DRAINING: {State.ABSENT},
    State.FAILED: {State.ABSENT},
}


@dataclass(eq=False, slots=True)
class Resident:
    """A version of a task. Only the event loop's thread changes it.

    Attributes:
        task: The task's name; None for the base.
        nbytes: Bytes it occupies; an estimate while loading, zero when it holds nothing.
        n_leases: Requests that hold it. It is dropped only when there are none.
        used_at: When it was last asked for, on the clock of the table.
        error: Why it failed.
    """

    task: str | None
    content_hash: str
    state: State = State.ABSENT
    nbytes: int = 0
    is_copy: bool = False
    n_leases: int = 0
    used_at: float = 0.0
    error: Exception | None = None
    loading: asyncio.Task[None] | None = None
    _prepared: PreparedTask | None = None

    @property
    def prepared(self) -> PreparedTask:
        """The engine's handle.

        Raises:
            RuntimeError: Nothing is loaded; holders of a lease never see this.
        """
        if self._prepared is None:
            raise RuntimeError(f"task {self.task!r} is {self.state}, not loaded")
        return self._prepared

    def move(self, state: State) -> None:
        """Go to `state`; a transition outside the table above is a programming error."""
        if state not in _SUCCESSORS[self.state]:
            raise RuntimeError(f"task {self.task!r} cannot go from {self.state} to {state}")
        self.state = state

    def become_ready(self, prepared: PreparedTask) -> None:
        """Take what the loader made."""
        self.move(State.READY)
        self._prepared = prepared
        self.content_hash = prepared.content_hash
        self.nbytes = prepared.nbytes

    def fail(self, error: Exception) -> None:
        """Quarantine: keep the reason. The weights stay until the last lease is gone."""
        self.move(State.FAILED)
        self.remember(error)
        self.drop_if_idle()

    def remember(self, error: Exception) -> None:
        """Keep why it failed, and nothing of where: a traceback would keep what the load held."""
        error.__traceback__ = error.__cause__ = error.__context__ = None
        self.error = error

    def retire(self) -> None:
        """No new requests; memory goes with the last lease."""
        self.move(State.DRAINING)
        self.drop_if_idle()

    def drop_if_idle(self) -> bool:
        """Free the memory of a draining or failed version that nobody holds."""
        if self.n_leases or self.state not in (State.DRAINING, State.FAILED):
            return False
        self._prepared = None
        self.nbytes = 0
        if self.state is State.DRAINING:
            self.move(State.ABSENT)
        return True
