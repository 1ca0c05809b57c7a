"""Measured points: what one is, how it is measured, and how a stopped run goes on."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from benchmarks.machine import commit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from benchmarks.methods.method import Method, Setting
    from benchmarks.quality.tasks import FineTune, Loaded

Point = dict[str, Any]
Key = tuple[str, str, str, str]


def key_of(point: Point) -> Key:
    """What a point is a measurement of."""
    setting = json.dumps(point["setting"], sort_keys=True)
    return point["group"], point["task"], point["method"], setting


def measure(loaded: Loaded, task: FineTune, method: Method, setting: Setting) -> Point:
    """Compress, decode, evaluate on test data."""
    start = time.perf_counter()
    problem = loaded.problem
    compressed = method.compress(problem, setting)
    scores = loaded.held_out.scores(compressed.delta, compressed.head)
    return {
        "group": task.group,
        "task": task.name,
        "method": method.name,
        "setting": dict(setting),
        "nbytes": round(compressed.nbytes),
        "shared_nbytes": compressed.shared_nbytes,
        "bits": 8 * compressed.nbytes / problem.layout.numel,
        **scores,
        "dense_accuracy": loaded.held_out.dense[1],
        "dense_loss": loaded.held_out.dense[0],
        "base_loss": loaded.held_out.base[0],
        "tuned": compressed.tuned,
        "seconds": round(time.perf_counter() - start, 2),
        "commit": commit(),
    }


class Journal:
    """Points as they come, one line each, so that none is measured twice."""

    def __init__(self, folder: Path) -> None:
        """Lines go into files of `folder`, one a process."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, name: str, line: Point) -> None:
        """Add one to the file `name`."""
        with (self._folder / f"{name}.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")

    def clear(self) -> None:
        """Forget everything."""
        for path in self._folder.glob("*.jsonl"):
            path.unlink()

    def lines(self) -> Iterator[Point]:
        """All that was added; a line that a kill cut short is left out."""
        for path in sorted(self._folder.glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):
                    yield json.loads(line)


def merged(*sources: Iterable[Point]) -> list[Point]:
    """Points by key, later ones replacing earlier ones, in a stable order."""
    found = {key_of(point): point for source in sources for point in source}
    return [found[key] for key in sorted(found)]
