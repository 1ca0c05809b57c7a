"""How verbs speak: tables and JSON on stdout, progress and notes on stderr."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from types import TracebackType

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
            console.print(text)
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


class CompressProgress:
    """Shows a running compression on stderr: a live line on a terminal, plain lines elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(stderr=True, quiet=quiet, markup=False, emoji=False)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(pulse_style="cyan"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._line = self._bar.add_task("", total=None)
        self._best: dict[tuple[str, float], float] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def stage(self, task: str, what: str) -> None:
        """A task enters a stage."""
        self._bar.update(self._line, description=f"{task}: {what}")
        if self._bar.disable:
            self._console.print(f"{task}: {what}", highlight=False)

    def trial(self, task: str, keep: float, loss: float, count: int) -> None:
        """A candidate was evaluated."""
        best = min(self._best.get((task, keep), loss), loss)
        self._best[task, keep] = best
        self._bar.update(
            self._line,
            description=f"{task}: search, keeping {keep:.3%}: "
            f"best {1 - best:.4f} of the gain after {count} evaluations",
        )

    def note(self, task: str, text: str) -> None:
        """Something worth telling."""
        self._console.print(f"{task}: note: {text}", highlight=False)
