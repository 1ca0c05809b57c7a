"""Results as one page that needs nothing else: `nps report`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.report.page import page
from benchmarks.report.sections import SECTIONS
from nps_store.errors import BadOptionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


BENCHMARK = "nps.bench-"
"""What schemas of results begin with."""


@dataclass(frozen=True)
class Report:
    """A page that was written.

    Attributes:
        sections: Their titles.
        left_out: Results that have no section: a document shows them, or nothing does.
    """

    sections: list[str]
    left_out: list[Path]


def write_report(results: Sequence[Path], out: Path) -> Report:
    """Write the page.

    Raises:
        BadOptionError: A file is no result of a benchmark, or none has a section.
    """
    read = {path: _read(path) for path in results}
    shown = {path: result for path, result in read.items() if result["schema"] in SECTIONS}
    if not shown:
        known = ", ".join(sorted(SECTIONS))
        raise BadOptionError(f"no result has a section; expected one of the kinds {known}")
    sections = [s for result in shown.values() for s in SECTIONS[result["schema"]](result)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(sections), encoding="utf-8")
    return Report([section.title for section in sections], [p for p in read if p not in shown])


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadOptionError(f"{path}: no JSON ({error}); expected a result file") from error
    schema = str(content.get("schema")) if isinstance(content, dict) else None
    if schema is None or not schema.startswith(BENCHMARK):
        raise BadOptionError(f"{path}: its schema is {schema!r}; expected one of {BENCHMARK}...")
    result: dict[str, Any] = content
    return result
