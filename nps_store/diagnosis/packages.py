"""Installed packages beside what this package asks for."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from nps_store.diagnosis.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PACKAGE = "nps-store"
_EXTRA = re.compile(r'extra == "([\w-]+)"')
DEVELOPMENT = {"dev", "fuzz"}
"""Extras that no user needs."""


def look_at_packages(requirements: Iterable[str] | None = None) -> Iterator[Finding]:
    """A finding for this package and for each that it asks for, those of extras included.

    Args:
        requirements: As in the package's metadata; by default those.
    """
    try:
        own = version(PACKAGE)
        asked = list(requires(PACKAGE) or () if requirements is None else requirements)
    except PackageNotFoundError:
        yield Finding(
            PACKAGE,
            "not installed",
            None,
            Severity.warning,
            "this is a source tree on the path: `pip install -e .` gives it a version and `nps`",
        )
        return
    yield Finding(PACKAGE, own, own)
    seen: set[str] = set()
    for requirement in map(Requirement, asked):
        extra = _extra(requirement)
        if requirement.name in seen | {PACKAGE} or extra in DEVELOPMENT:
            continue
        seen.add(requirement.name)
        yield look_at(requirement, extra)


def look_at(requirement: Requirement, extra: str) -> Finding:
    """One package: there, new enough, and not too new."""
    name, wanted = requirement.name, str(requirement.specifier)
    try:
        found = version(name)
    except PackageNotFoundError:
        if extra:
            return Finding(name, f"not installed (extra `{extra}`)")
        return Finding(name, "missing", None, Severity.problem, f"pip install '{name}{wanted}'")
    if requirement.specifier.contains(found, prereleases=True):
        return Finding(name, found, found)
    severity = Severity.warning if extra else Severity.problem
    return Finding(
        name, f"{found}, wanted {wanted}", found, severity, f"pip install '{name}{wanted}'"
    )


def _extra(requirement: Requirement) -> str:
    """The extra that asks for it; none for what is always asked for."""
    named = _EXTRA.search(str(requirement.marker))
    return named[1] if named else ""
