"""A part of the page: a figure, its numbers, and where they are from."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Result = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """One figure.

    Attributes:
        title: Above it.
        words: What it shows.
        figure: HTML of the chart and its legend; empty where the table is all.
        head: Of the table of its numbers.
        rows: Cells of that table.
        origin: Who measured it, on what.
    """

    title: str
    words: str
    figure: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    origin: str

    def html(self) -> str:
        """The section."""
        numbers = _table(self.head, self.rows)
        if self.figure:
            numbers = f"<details><summary>The numbers</summary>{numbers}</details>"
        return (
            f"<section><h2>{escape(self.title)}</h2><p>{escape(self.words)}</p>"
            f'{self.figure}{numbers}<p class="origin">{escape(self.origin)}</p></section>'
        )


def origin(result: Mapping[str, Any]) -> str:
    """Command, machine, date and commit."""
    return (
        f"{result['command']}; {result['cores']} cores of {result['processor']} "
        f"({result['device']}), torch {result['packages']['torch']}, {result['date']}, "
        f"commit {result['commit']}"
    )


def number(value: float | None) -> str:
    """As a cell."""
    return "-" if value is None else f"{value:.4g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'
