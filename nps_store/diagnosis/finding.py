"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class Severity(IntEnum):
    """How much a finding matters."""

    fine = 0
    warning = 1
    """Works, but slower or less than it could, or may run out of something."""
    problem = 2
    """Does not work."""


@dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
        what: What was looked at.
        found: For people.
        value: The same for programs, as JSON holds it.
        severity: Whether it matters.
        advice: What to do about it, where it does.
    """

    what: str
    found: str
    value: Any = None
    severity: Severity = Severity.fine
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "what": self.what,
            "found": self.found,
            "value": self.value,
            "severity": self.severity.name,
            "advice": self.advice,
        }
