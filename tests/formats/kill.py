"""Kills writers with SIGKILL at random moments and looks at the store after each.

    python -m tests.formats.kill STORE --kills 400

Prints one JSON object of counts; exits with 1 when a store was ever anything but old or new.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formats import Container, ContainerWriter, compact, verify
from tests.formats.stores import add_task, build, contents, expected_tensors, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TASKS = 4
Model = dict[str, int]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--kills", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    counts = run(arguments.store, arguments.kills, random.Random(arguments.seed))  # noqa: S311
    sys.stdout.write(json.dumps(counts) + "\n")
    return 1 if counts.get("broken") else 0


def run(path: Path, n_kills: int, chance: random.Random) -> dict[str, int]:
    """Kills until that many writers have died of it."""
    build(path, "one", storage="embedded")
    model: Model = {"one": 0}
    durations: dict[str, float] = {}
    counts: Counter[str] = Counter()
    with Container.open(path) as reader:
        first = contents(reader)
        while counts["killed"] < n_kills and not counts["broken"]:
            name, new_model, operation = _choose(path, model, counts.total(), chance)
            before = path.read_bytes()
            delay = chance.random() * 1.3 * durations.get(name, 0.02)
            killed, elapsed = _run_and_kill(operation, delay)
            if not killed:
                durations[name] = 0.5 * durations.get(name, elapsed) + 0.5 * elapsed
            after = path.read_bytes()
            found = _tasks(path)
            is_old, is_new = found == _expected(model), found == _expected(new_model)
            if not (is_old if killed and not is_new else is_new):
                counts["broken"] += 1
            counts["killed" if killed else "finished"] += 1
            counts[f"killed during {name}"] += killed
            counts["left bytes of an unfinished change"] += killed and is_old and after != before
            counts["killed after the change was visible"] += killed and is_new and name != "compact"
            model = new_model if is_new else model
            counts["broken"] += bool(verify(path, "decode"))
        counts["broken"] += contents(reader) != first
    return dict(counts)


def _choose(
    path: Path, model: Model, seed: int, chance: random.Random
) -> tuple[str, Model, Callable[[], object]]:
    name = chance.choice(["add", "rm", "compact"])
    if name == "compact":
        return name, model, lambda: compact(path)
    if (name == "rm" and model) or len(model) >= MAX_TASKS:
        task = chance.choice(sorted(model))
        return "rm", {k: v for k, v in model.items() if k != task}, lambda: _remove(path, task)
    task = f"task {seed}"
    return "add", {**model, task: seed}, lambda: _add(path, task, seed)


def _add(path: Path, task: str, seed: int) -> None:
    with ContainerWriter.open(path) as writer:
        add_task(writer, task, seed)
        writer.commit()


def _remove(path: Path, task: str) -> None:
    with ContainerWriter.open(path) as writer:
        writer.remove_task(task)
        writer.commit()


def _run_and_kill(operation: Callable[[], object], delay_s: float) -> tuple[bool, float]:
    """Runs it in a child, killed after a delay; whether that came in time, and seconds it took."""
    ready, started = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(started, b".")
        status = 1
        try:
            operation()
            status = 0
        finally:
            os._exit(status)
    os.read(ready, 1)
    begin = time.perf_counter()
    _sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    elapsed = time.perf_counter() - begin
    os.close(ready)
    os.close(started)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("the writer failed by itself")
    return os.WIFSIGNALED(status), elapsed


def _sleep(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        time.sleep(min(seconds, 0.0005))


def _tasks(path: Path) -> dict[str, Any]:
    return {name: task[0] for name, task in snapshot(path)["tasks"].items()}


def _expected(model: Model) -> dict[str, Any]:
    return {name: expected_tensors(seed) for name, seed in model.items()}


if __name__ == "__main__":
    raise SystemExit(main())
