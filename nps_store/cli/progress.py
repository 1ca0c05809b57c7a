"""A running compression on stderr: a live row a task on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column


class Pace:
    """How fast something is done again and again.

    Attributes:
        count: How often it was done.
    """

    def __init__(self) -> None:
        self.count = 0
        self._since = 0.0

    def add(self) -> None:
        """It was done once more; the clock starts with the first time."""
        if not self.count:
            self._since = time.monotonic()
        self.count += 1

    def left_s(self, total: int) -> float:
        """Seconds until it is done `total` times; infinite while there is no pace to go by."""
        if self.count < 2:
            return math.inf
        pace_s = (time.monotonic() - self._since) / (self.count - 1)
        return pace_s * max(total - self.count, 0)


@dataclass
class Row:
    """What is shown of one task.

    Attributes:
        line: Its line on the terminal.
        stage: What it is at.
        keep: The rate that is searched.
        best: Least loss at that rate.
        trials: Evaluations at that rate.
        steps: Steps of learning at that rate.
        searched_since: When the search began, in monotonic seconds.
    """

    line: TaskID
    stage: str = ""
    keep: float = math.nan
    best: float = math.inf
    trials: Pace = field(default_factory=Pace)
    steps: Pace = field(default_factory=Pace)
    searched_since: float = 0.0

    def add_trial(self, keep: float, loss: float) -> None:
        """Count an evaluation."""
        if keep != self.keep:
            self.keep, self.best, self.trials = keep, math.inf, Pace()
        self.best = min(self.best, loss)
        self.trials.add()

    def add_step(self, done: int) -> None:
        """Count a step of learning."""
        if done == 1:
            self.steps = Pace()
        self.steps.add()


class CompressProgress:
    """Listens to a compression and shows it."""

    def __init__(
        self, *, quiet: bool, evaluations: int = 30, search_seconds: float | None = None
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

    def __exit__(self, *_error: object) -> None:
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
        if what == "search" and not row.trials.count:
            row.searched_since = time.monotonic()
        self._bar.update(row.line, what=what, visible=what != "done")
        if self._bar.disable or what == "done":
            self._say(f"{task}: {what}")

    def trial(self, task: str, keep: float, loss: float, count: int) -> None:
        """A candidate was evaluated. The time left is that of the search at its rate, at most; how
        many rates will be tried, nobody knows."""
        row = self._row(task)
        row.add_trial(keep, loss)
        self._show(
            row, f"best {1 - row.best:.4f}, {count} tried", row.trials.left_s(self._evaluations)
        )

    def step(self, task: str, done: int, total: int) -> None:
        """A step of learning was made. The time left is that of the learning at its rate, at most:
        the search's own time may end it."""
        row = self._row(task)
        row.add_step(done)
        self._show(row, f"step {done} of {total}", row.steps.left_s(total))

    def note(self, task: str, text: str) -> None:
        """Something worth telling."""
        self._say(f"{task}: note: {text}")

    def _row(self, task: str) -> Row:
        if task not in self._rows:
            self._rows[task] = Row(self._bar.add_task(task, total=None, start=False, what=""))
        return self._rows[task]

    def _show(self, row: Row, what: str, left_s: float) -> None:
        end = row.searched_since + self._search_seconds
        left_s = min(left_s, max(end - time.monotonic(), 0.0))
        left = ""
        if 1 <= left_s < math.inf:
            clock = f"{int(left_s) // 60}:{int(left_s) % 60:02}"
            left = f", \N{LESS-THAN OR EQUAL TO} {clock} left to {row.stage}"
        self._bar.update(row.line, what=f"{row.stage} at {row.keep:.3%}: {what}{left}")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


def _text(template: str, *, ratio: int) -> TextColumn:
    column = Column(ratio=ratio, no_wrap=True, overflow="ellipsis")
    return TextColumn(template, markup=False, table_column=column)
