"""How verbs speak: tables and JSON on stdout."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

PIPE_WIDTH = 160
"""Columns of a table that does not go to a terminal."""


def emit(document: dict[str, Any], *, as_json: bool, text: RenderableType) -> None:
    """Print a result: the document as JSON, or the text for people."""
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        width = None if sys.stdout.isatty() else PIPE_WIDTH
        console = Console(width=width, markup=False, emoji=False)
        with console.capture() as captured:  # it would end the process on a closed pipe
            console.print(text, soft_wrap=isinstance(text, str))  # a sentence stays a line
        sys.stdout.write(captured.get())
    sys.stdout.flush()  # what cannot be written is an error of the verb


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A plain table; columns named in `right` are aligned to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return made


def size(nbytes: float) -> str:
    """Bytes for people, in decimal units as disks are sold."""
    units = ("B", "kB", "MB", "GB")
    power = min(int(math.log10(max(nbytes, 1)) // 3), len(units) - 1)
    scaled = nbytes / 1000**power
    return f"{scaled:.{1 if power and scaled < 100 else 0}f} {units[power]}"


def share(value: float | None) -> str:
    """A quality for people."""
    return "-" if value is None else f"{value:.3f}"
