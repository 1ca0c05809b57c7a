"""All checks, and how they are run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nps_store.selftest import decoding, searching, switching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKS: dict[str, Callable[[], str]] = {
    "every section of a known store": decoding.sections_are_sound,
    "weights of its tasks": decoding.weights_are_known,
    "apply and revert, plain torch": switching.plain_is_exact,
    "apply and revert, compiled for the processor": switching.compiled_is_exact,
    "apply and revert, compiled for a GPU": switching.gpu_is_exact,
    "what the dither keeps": searching.selection_is_known,
    "a search with a known optimum": searching.optimum_is_found,
}
"""Each returns what it saw, raises AssertionError if that is wrong, and LookupError where the
machine has nothing to check."""


@dataclass(frozen=True)
class Outcome:
    """Of one check.

    Attributes:
        check: Its name.
        passed: None where there was nothing to check.
        seen: In words.
        seconds: It took.
    """

    check: str
    passed: bool | None
    seen: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "check": self.check,
            "passed": self.passed,
            "seen": self.seen,
            "seconds": round(self.seconds, 4),
        }


def run() -> Iterator[Outcome]:
    """Run all checks; one that fails in whatever way does not keep the others from running."""
    for name, check in CHECKS.items():
        start = time.perf_counter()
        passed: bool | None
        try:
            seen, passed = check(), True
        except LookupError as absent:
            seen, passed = str(absent.args[0]), None
        except Exception as error:  # noqa: BLE001 (whatever it is, the installation is not sound)
            seen, passed = f"{type(error).__name__}: {error}", False
        yield Outcome(name, passed, seen, time.perf_counter() - start)
