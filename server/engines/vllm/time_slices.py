"""Whose turn it is: tasks take turns of a quantum or less, in a ring, as long as they have work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Key = TypeVar("Key")


class TimeSlices(Generic[Key]):
    """The ring of the tasks that have work, and whose turn it is.

    A task that has work waits at most a quantum for each of the others, and one step more: only
    between steps can the turn change, and it does before a step that would end after the quantum,
    if that takes as long as the last one. A turn is of one step at least.
    """

    def __init__(self, quantum_s: float, clock: Callable[[], float]) -> None:
        """Nobody's turn.

        Args:
            quantum_s: Seconds of a turn while others wait.
            clock: Seconds that only increase.
        """
        self._quantum_s = quantum_s
        self._clock = clock
        self._ring: list[Key] = []
        self._since = self._last = clock()
        self._is_over = False

    def end_turn(self) -> None:
        """Whoever's turn it is cannot use it; the next one comes, if there is another."""
        self._is_over = True

    @property
    def following(self) -> Key | None:
        """Whose turn comes after this one; the same one's if nobody waits."""
        return self._ring[1 % len(self._ring)] if self._ring else None

    def turn(self, at_work: Mapping[Key, float]) -> Key | None:
        """Whose step the next one is; None if nobody has work.

        Args:
            at_work: Who has work, and the part of a quantum, at most 1, that its turn may take;
                newcomers join in this order.
        """
        before = self._ring[:1]
        now = self._clock()
        step_s = now - self._last
        turn_s = self._quantum_s * at_work.get(before[0], 0.0) if before else 0.0
        is_over = self._is_over or now - self._since + step_s > turn_s
        ring = [key for key in self._ring if key in at_work]
        ring += [key for key in at_work if key not in ring]
        if is_over and ring[:1] == before:
            ring = ring[1:] + ring[:1]
        if is_over or ring[:1] != before:
            self._since = now
        self._ring, self._is_over, self._last = ring, False, now
        return ring[0] if ring else None
