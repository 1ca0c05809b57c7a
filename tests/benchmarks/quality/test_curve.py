"""Means, what a curve says between its points, and the standing in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from rich.table import Table

from benchmarks.methods import OURS
from benchmarks.quality.curve import Mean, bits_at, curves, frontier
from benchmarks.quality.plot import draw
from benchmarks.quality.table import rows, standing, tables, verdict

if TYPE_CHECKING:
    from pathlib import Path


def mean(bits: float, quality: float) -> Mean:
    return Mean({}, bits, 1e6 * bits, 2e6 * bits, quality, 1)


def point(method: str, task: str, keep: float, bits: float, quality: float) -> dict[str, Any]:
    return {
        "group": "classifiers", "task": task, "method": method, "setting": {"keep": keep},
        "bits": bits, "nbytes": 1000 * bits, "accuracy_ratio": quality, "gain_kept": quality - 0.1,
    }  # fmt: skip


POINTS = [
    point(OURS, "a", 0.1, 1.0, 0.9),
    point(OURS, "b", 0.1, 3.0, 0.7),
    point("trim", "a", 0.1, 2.0, 0.6),
    point("trim", "b", 0.1, 2.0, 0.8),
    point("trim", "a", 0.2, 8.0, 0.95),
    point("trim", "b", 0.2, 8.0, 0.95),
    point("trim", "a", 0.4, 9.0, 1.0),
]


def test_means_are_over_all_tasks_or_not_at_all() -> None:
    found = curves(POINTS, "classifiers")
    assert [(m.bits, m.quality, m.n_tasks) for m in found[OURS]] == [(2.0, 0.8, 2)]
    assert [m.bits for m in found["trim"]] == [2.0, 8.0]
    by_gain = curves(POINTS, "classifiers", "gain_kept")
    assert by_gain[OURS][0].quality == pytest.approx(0.7)


def test_points_beaten_by_others_of_the_curve_are_no_frontier() -> None:
    curve = [mean(1, 0.5), mean(2, 0.4), mean(2, 0.6), mean(3, 0.6), mean(4, 0.9)]
    assert [(m.bits, m.quality) for m in frontier(curve)] == [(1, 0.5), (2, 0.6), (4, 0.9)]


def test_bits_between_points_lie_on_the_line_over_their_logarithm() -> None:
    curve = [mean(1, 0.5), mean(4, 0.9)]
    assert bits_at(curve, 0.7) == pytest.approx(2)
    assert bits_at(curve, 0.9) == pytest.approx(4)
    assert bits_at(curve, 0.3) == 1
    assert bits_at(curve, 0.91) is None


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ([mean(1, 0.7), mean(4, 0.9)], "2.0x"),
        ([mean(10, 0.7), mean(40, 0.9)], "20x"),
        ([mean(0.5, 0.7), mean(2, 0.9)], "same"),
        ([mean(0.2, 0.7), mean(0.8, 0.9)], "0.40x AHEAD"),
        ([mean(0.5, 0.95)], "<0.50x AHEAD"),
        ([mean(1, 0.7)], "never (0.700)"),
    ],
)
def test_standing_says_who_is_ahead_and_by_how_much(theirs: list[Mean], words: str) -> None:
    assert standing(theirs, mean(1, 0.8)) == words


def test_rows_and_table_hold_every_method() -> None:
    ((ours, standings),) = rows(POINTS, "classifiers")
    assert ours.quality == pytest.approx(0.8)
    assert standings.keys() == {"trim"}
    table, words = tables({"points": POINTS})
    assert isinstance(table, Table)
    assert table.row_count == 1
    assert words == f"classifiers: {OURS} is at or left of every method at each of its points."
    assert list(tables({"points": POINTS[2:]})) == []


def test_the_verdict_names_who_is_ahead() -> None:
    words = verdict("g", [(mean(1, 0.8), {"trim": "0.40x AHEAD", "DARE": "2.0x"})])
    assert words == f"g: {OURS} is behind: at 0.8000 (1.0000 bits) trim takes 0.40x the bits."


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_curves_are_drawn(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / f"curves.{suffix}"
    draw({"points": POINTS}, out)
    start = {"svg": b"<?xml", "png": b"\x89PNG"}
    assert out.read_bytes().startswith(start[suffix])
