"""Charts as inline SVG. Colours come from the page's style sheet, so that they follow its theme."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.report.scale import Scale

WIDTH, HEIGHT = 420, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 10, 40
N_COLOURS = 8
BAR, LABEL, GAP = 14, 15, 9
"""Heights in a chart of bars."""


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: In the legend.
        points: Pairs of x and y.
        is_ours: Drawn to be seen first.
    """

    name: str
    points: Sequence[tuple[float, float]]
    is_ours: bool = False


@dataclass(frozen=True)
class Bar:
    """One bar, of parts behind one another.

    Attributes:
        name: Above it.
        parts: Style class and length of each part.
        label: At the right of the name.
    """

    name: str
    parts: Sequence[tuple[str, float]]
    label: str


def chart(series: Sequence[Series], x: Scale, y: Scale, *, x_label: str, y_label: str) -> str:
    """Lines with a mark at each point."""
    body = "".join((*_grid(x, y), *map(_line, *zip(*_ordered(series, x, y), strict=True))))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    labels = (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" class="axis mid">'
        f"{escape(x_label)}</text>"
        f'<text x="10" y="{middle}" transform="rotate(-90 10 {middle})" class="axis mid">'
        f"{escape(y_label)}</text>"
    )
    return _svg(HEIGHT, f"{y_label} by {x_label}", body + labels)


def legend(series: Sequence[Series]) -> str:
    """Names beside their colours, as HTML."""
    items = (
        f'<li class="{_style(number, one)}"><svg viewBox="0 0 22 10" aria-hidden="true">'
        f'<path d="M0 5H22"/></svg>{escape(one.name)}</li>'
        for number, one in enumerate(series)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def bars(rows: Sequence[Bar]) -> str:
    """Horizontal bars from zero, as long as what they stand for."""
    longest = max(sum(length for _, length in row.parts) for row in rows)
    step = LABEL + BAR + GAP
    body = []
    for number, row in enumerate(rows):
        top, x = number * step, 0.0
        body.append(
            f'<text x="0" y="{top + 11}">{escape(row.name)}</text>'
            f'<text x="{WIDTH}" y="{top + 11}" class="end">{escape(row.label)}</text>'
            f'<rect x="0" y="{top + LABEL}" width="{WIDTH}" height="{BAR}" class="track"/>'
        )
        for style, length in row.parts:
            width = WIDTH * length / longest
            body.append(
                f'<rect x="{x:.2f}" y="{top + LABEL}" width="{max(width, 1):.2f}" '
                f'height="{BAR}" class="{style}"/>'
            )
            x += width
    return _svg(len(rows) * step, "bars", "".join(body))


def _svg(height: float, title: str, body: str) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def _grid(x: Scale, y: Scale) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value, name in x.ticks:
        at = _x(x, value)
        yield f'<path d="M{at:.1f} {TOP}V{bottom}" class="grid"/>'
        yield f'<text x="{at:.1f}" y="{bottom + 14}" class="mid">{escape(name)}</text>'
    for value, name in y.ticks:
        at = _y(y, value)
        yield f'<path d="M{LEFT} {at:.1f}H{right}" class="grid"/>'
        yield f'<text x="{LEFT - 4}" y="{at + 4:.1f}" class="end">{escape(name)}</text>'


def _ordered(
    series: Sequence[Series], x: Scale, y: Scale
) -> list[tuple[str, Series, list[tuple[float, float]]]]:
    """Style, series and places; ours last, and so on top."""
    placed = [
        (_style(number, one), one, [(_x(x, a), _y(y, b)) for a, b in one.points])
        for number, one in enumerate(series)
    ]
    return sorted(placed, key=lambda item: item[1].is_ours)


def _line(style: str, series: Series, places: Sequence[tuple[float, float]]) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in places)
    return f'<g class="{style}"><title>{escape(series.name)}</title><path d="M{path}"/>{dots}</g>'


def _style(number: int, series: Series) -> str:
    if series.is_ours:
        return "line ours"
    dashed = " dashed" if number // N_COLOURS % 2 else ""
    return f"line c{number % N_COLOURS}{dashed}"


def _x(scale: Scale, value: float) -> float:
    return LEFT + scale.place(value) * (WIDTH - LEFT - RIGHT)


def _y(scale: Scale, value: float) -> float:
    return HEIGHT - BOTTOM - scale.place(value) * (HEIGHT - TOP - BOTTOM)
