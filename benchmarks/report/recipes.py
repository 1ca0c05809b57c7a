"""Sections of merges and transfers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.merging.results import lines
from benchmarks.methods import OURS
from benchmarks.report.section import Section, origin
from benchmarks.report.svg import Bar, bars
from benchmarks.transfer.table import means

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.report.section import Result


def fusion(result: Result) -> Iterator[Section]:
    """Bars of accuracy, best first, between the individual models and the base."""
    tasks = list(result["individual"]["tasks"])
    shown = lines(result)
    yield Section(
        f"{len(tasks)} tasks merged into one",
        "Mean accuracy on test data of one body with the head of each task.",
        bars([_bar(name, row["accuracy"], f"{row['accuracy']:.1%}") for name, row in shown]),
        ("method", "mean", *tasks),
        [
            (name, f"{row['accuracy']:.4f}", *(f"{row['tasks'][task]:.3f}" for task in tasks))
            for name, row in shown
        ],
        origin(result),
    )


def transfer(result: Result) -> Iterator[Section]:
    """Bars of the H-score, best first."""
    rows = means(result["rows"])
    keys = ("changed", "task_kept", "base_kept", "average", "h_score")
    yield Section(
        "A task added to a base that keeps its abilities",
        "Harmonic mean of what is kept of the fine-tune's accuracy and of the base's retrieval.",
        bars([_bar(row["method"], row["h_score"], f"{row['h_score']:.3f}") for row in rows]),
        ("method", *(key.replace("_", " ") for key in keys)),
        [(row["method"], *(f"{row[key]:.4f}" for key in keys)) for row in rows],
        origin(result),
    )


def _bar(name: str, value: float, label: str) -> Bar:
    return Bar(name, [("own" if name.startswith(OURS) else "peer", value)], label)
