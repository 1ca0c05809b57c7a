"""Markdown tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def head(names: Sequence[str]) -> list[str]:
    """The first two lines."""
    return [row(names), "|" + "---|" * len(names)]


def row(cells: Iterable[str]) -> str:
    """A line."""
    return "| " + " | ".join(cells) + " |"
