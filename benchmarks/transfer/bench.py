"""One task with both of its sides: methods work on one split and are measured on the other."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.merging.method import Merged
from benchmarks.quality.tasks import load
from benchmarks.transfer import METHODS
from benchmarks.transfer.problem import Sides, TransferProblem, calibration_sides
from benchmarks.transfer.retrieval import Retrieval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.quality.tasks import FineTune
    from benchmarks.transfer.docstrings import Pair

FINE_TUNE, BASE = "fine-tune", "base"
"""The two ends, by their names in results."""


class Bench:
    """One task with both of its sides."""

    def __init__(
        self,
        task: FineTune,
        texts: Mapping[str, Sequence[Pair]],
        device: str,
        n_rows: int | None = None,
    ) -> None:
        """Load models and data.

        Args:
            task: The fine-tune.
            texts: Pairs of the splits.
            device: Where everything lies.
            n_rows: Calibration texts of the task, at most.
        """
        loaded = load(task, [task], device, n_rows=n_rows)
        problem = loaded.problem
        retrieval = {
            split: Retrieval(task.base, problem.layout, chosen, device)
            for split, chosen in texts.items()
        }
        sides = calibration_sides(problem, retrieval["calibration"])
        calibration = texts["calibration"]
        base_texts = [text for pair in calibration for text in (pair.query, pair.document)]
        self.problem = TransferProblem(problem, sides, tuple(base_texts), n_rows)
        self._test = Sides(problem, loaded.held_out, retrieval["test"])

    def references(self) -> dict[str, Merged]:
        """The dense fine-tune and the base."""
        delta = self.problem.delta
        return {FINE_TUNE: Merged(delta), BASE: Merged(torch.zeros_like(delta))}

    def row(self, name: str, merged: Merged, seconds: float) -> dict[str, Any]:
        """What a vector gives on test data."""
        balance = self._test.balance(merged.delta)
        return {
            "task": self.problem.task.task,
            "method": name,
            "changed": float((merged.delta != 0).double().mean()),
            "accuracy": balance.accuracy,
            "recall": balance.found.recall,
            "mrr": balance.found.mrr,
            "task_kept": balance.task_kept,
            "base_kept": balance.base_kept,
            "average": balance.average,
            "h_score": balance.h_score,
            "tuned": merged.tuned,
            "seconds": round(seconds, 2),
        }

    def measure(self, name: str) -> dict[str, Any]:
        """Let a method work, then look at the test data."""
        start = time.perf_counter()
        merged = METHODS[name].merge(self.problem)
        return self.row(name, merged, time.perf_counter() - start)
