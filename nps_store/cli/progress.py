"""A running compression on stderr: a live row a task on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

if TYPE_CHECKING:
    from types import TracebackType


@dataclass
class Row:
    """What is shown of one task.

    Attributes:
        line: Its line on the terminal.
        stage: What it is at.
        keep: The rate that is searched.
        best: Least loss at that rate.
        n_trials: Evaluations at that rate.
        since: When the first of them came, in monotonic seconds.
        searched_since: When the search began, likewise.
    """

    line: TaskID
    stage: str = ""
    keep: float = math.nan
    best: float = math.inf
    n_trials: int = 0
    since: float = 0.0
    searched_since: float = 0.0

    def add(self, keep: float, loss: float) -> None:
        """Count an evaluation."""
        if keep != self.keep:
            self.keep, self.best, self.n_trials = keep, math.inf, 0
            self.since = time.monotonic()
        self.best = min(self.best, loss)
        self.n_trials += 1

    def left_s(self, evaluations: int) -> float:
        """Seconds that this rate takes at most; infinite while there is no pace to go by."""
        if self.n_trials < 2:
            return math.inf
        pace_s = (time.monotonic() - self.since) / (self.n_trials - 1)
        return pace_s * max(evaluations - self.n_trials, 0)


class CompressProgress:
    """Listens to a compression and shows it."""

    def __init__(
        self, *, quiet: bool, evaluations: int = 60, search_seconds: float | None = None
    ) -> None:
        """Prepare to show.

        Args:
            quiet: Show nothing at all.
            evaluations: That were asked for a rate, from which the time left is told.
            search_seconds: That a task's search was given.
        """
        self._evaluations = evaluations
        self._search_seconds = search_seconds or math.inf
        self._console = Console(stderr=True, quiet=quiet, markup=False, emoji=False)
        self._bar = Progress(
            SpinnerColumn(),
            _text("{task.description}", ratio=1),
            _text("{task.fields[what]}", ratio=4),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            expand=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._rows: dict[str, Row] = {}

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
        row = self._row(task)
        for name, other in self._rows.items():
            if name != task and other.stage == "check":  # it waits for its turn
                self._bar.update(other.line, visible=False)
        if not row.stage:
            self._bar.start_task(row.line)
        row.stage = what
        if what == "search" and not row.n_trials:
            row.searched_since = time.monotonic()
        self._bar.update(row.line, what=what, visible=what != "done")
        if self._bar.disable or what == "done":
            self._say(f"{task}: {what}")

    def trial(self, task: str, keep: float, loss: float, count: int) -> None:
        """A candidate was evaluated. The time left is that of its rate, at most; how many rates
        will be tried, nobody knows."""
        row = self._row(task)
        row.add(keep, loss)
        what = f"{row.stage} at {keep:.3%}: best {1 - row.best:.4f}, {count} tried{self._left(row)}"
        self._bar.update(row.line, what=what)

    def note(self, task: str, text: str) -> None:
        """Something worth telling."""
        self._say(f"{task}: note: {text}")

    def _row(self, task: str) -> Row:
        if task not in self._rows:
            self._rows[task] = Row(self._bar.add_task(task, total=None, start=False, what=""))
        return self._rows[task]

    def _left(self, row: Row) -> str:
        end = row.searched_since + self._search_seconds
        left_s = min(row.left_s(self._evaluations), max(end - time.monotonic(), 0.0))
        if not 1 <= left_s < math.inf:
            return ""
        return f", \N{LESS-THAN OR EQUAL TO} {int(left_s) // 60}:{int(left_s) % 60:02} left"

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


def _text(template: str, *, ratio: int) -> TextColumn:
    column = Column(ratio=ratio, no_wrap=True, overflow="ellipsis")
    return TextColumn(template, markup=False, table_column=column)
