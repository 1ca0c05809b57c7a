"""Runs methods on tasks, one process a task, and gathers their points into one file."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.machine import choose_gpu, circumstances, write_result
from benchmarks.methods import METHODS
from benchmarks.quality.points import Journal, Key, Point, key_of, measure, merged
from benchmarks.quality.tasks import FineTune, load
from benchmarks.zoo import quiet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from pathlib import Path

SCHEMA = "nps.bench-quality/1"
REFRESH_S = 15.0


@dataclass(frozen=True)
class Run:
    """What to measure.

    Attributes:
        tasks: The fine-tunes.
        everything: All fine-tunes there are: multi-task methods merge a whole group.
        methods: Names of the methods.
        device: cpu or cuda.
        out: The result file; its points are not measured again.
        journal: Folder for points as they come.
        jobs: Processes at a time; 1 stays in this one.
        seconds: No point is begun after that many.
        again: Measure what is there already too, and forget what it was.
    """

    tasks: Sequence[FineTune]
    everything: Sequence[FineTune]
    methods: Sequence[str]
    device: str
    out: Path
    journal: Path
    jobs: int
    seconds: float | None = None
    again: bool = False

    def __call__(self) -> dict[str, Any]:
        """Measure what is missing; returns what the result file then holds."""
        deadline = None if self.seconds is None else time.time() + self.seconds
        journal = Journal(self.journal)
        before = self._result(journal)
        if self.again:
            before["points"] = [p for p in before["points"] if not self._is_chosen(p)]
            before["skipped"] = [p for p in before["skipped"] if not self._is_chosen(p)]
        self._write(before)
        journal.clear()  # what was in it is in the result file now
        done = {key_of(point) for point in before["points"]}
        if self.jobs == 1:
            for task in self.tasks:
                _task(self, task, done, deadline)
            return self._write(self._result(journal))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(self.jobs, len(self.tasks)), context) as pool:
            pending: set[Future[None]] = {
                pool.submit(_task, self, task, done, deadline) for task in self.tasks
            }
            while pending:
                finished, pending = wait(pending, timeout=REFRESH_S)
                for future in finished:
                    future.result()
                result = self._write(self._result(journal))
        return result

    def _is_chosen(self, line: Point) -> bool:
        return line["method"] in self.methods and line["task"] in {t.name for t in self.tasks}

    def _result(self, journal: Journal) -> dict[str, Any]:
        """What the result file holds, with what is new in the journal."""
        old = json.loads(self.out.read_text()) if self.out.is_file() else {}
        lines = list(journal.lines())
        skipped = [*old.get("skipped", []), *(line for line in lines if "reason" in line)]
        points = merged(old.get("points", []), (line for line in lines if "bits" in line))
        about = circumstances(self.device)
        return {
            "schema": SCHEMA,
            "command": "python -m benchmarks.quality",
            **about,
            "commit": ", ".join(sorted({point["commit"] for point in points})) or about["commit"],
            "seed": "of the task's name",
            "skipped": [line for i, line in enumerate(skipped) if line not in skipped[:i]],
            "points": points,
        }

    def _write(self, result: dict[str, Any]) -> dict[str, Any]:
        write_result(self.out, result)
        return result


def _task(run: Run, task: FineTune, done: set[Key], deadline: float | None) -> None:
    """All points of one task; each is in the journal as soon as it is measured."""
    import torch

    quiet()
    if run.device == "cuda":
        choose_gpu(run.tasks.index(task))
    if run.jobs > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // run.jobs))
    group = [other for other in run.everything if other.group == task.group]
    journal, loaded = Journal(run.journal), None
    for name in run.methods:
        method = METHODS[name]
        for setting in method.settings_of(task.group):
            about = {"group": task.group, "task": task.name, "method": name}
            if key_of({**about, "setting": dict(setting)}) in done:
                continue
            if deadline is not None and time.time() > deadline:
                return
            loaded = loaded or load(task, group, run.device)
            try:
                point = measure(loaded, task, method, setting)
            except ModuleNotFoundError as error:
                journal.append(task.name, {**about, "reason": f"{error.name} is not installed"})
                break
            except Exception as error:  # noqa: BLE001 (one point must not cost the run; it is told)
                reason = f"{dict(setting)}: {type(error).__name__}: {error}"
                journal.append(task.name, {**about, "reason": reason})
                print(f"{task.name}: {name}: {reason}", flush=True, file=sys.stderr)
                continue
            journal.append(task.name, point)
            print(
                f"{task.group} {task.name}: {name} {dict(setting)}: {point['bits']:.4f} bits, "
                f"gain {point['gain_kept']:.4f}, accuracy {point['accuracy_ratio']:.4f}, "
                f"{point['seconds']:.1f} s",
                flush=True,
                file=sys.stderr,
            )
