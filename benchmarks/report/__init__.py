"""Results as one page that needs nothing else: `nps report`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.report.page import page
from benchmarks.report.sections import SECTIONS
from nps_store.errors import BadOptionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def write_report(results: Sequence[Path], out: Path) -> list[str]:
    """Write the page; the titles of its sections.

    Raises:
        BadOptionError: A file is no result of a benchmark that has a section.
    """
    sections = [section for path in results for section in SECTIONS[_kind(path)](_read(path))]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(sections), encoding="utf-8")
    return [section.title for section in sections]


def _kind(path: Path) -> str:
    schema = str(_read(path).get("schema"))
    if schema not in SECTIONS:
        raise BadOptionError(
            f"{path}: its schema is {schema!r}; expected one of {', '.join(sorted(SECTIONS))}"
        )
    return schema


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadOptionError(f"{path}: no JSON ({error}); expected a result file") from error
    return content if isinstance(content, dict) else {}
