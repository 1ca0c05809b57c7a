"""How long it takes to read a task, from its directory to decoded records; page cache warm.

Tasks of the shipped store, by numpy, by the compiled loops, and by these all at once as a switch
reads them; and a large made-up one of a few hundred tensors, by one thread and by as many as there
are cores, record by record and all at once.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from formats import Container, ContainerWriter, dither, parallel
from formats.codecs import compiled
from formats.index import BaseTensor
from formats.records import SparseLevels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from formats.files import FileRef

SHAPES = [(1536, 1536), (384, 1536), (5376, 1536), (1536,)] * 72
RATE = 0.005
REPEATS = 32


def measure(shipped: Path) -> list[dict[str, Any]]:
    """Milliseconds a task; the shipped ones in turn."""
    least, most = compiled.MIN_ENTRIES, parallel.MAX_THREADS
    with tempfile.TemporaryDirectory() as folder:
        large = write_tasks(Path(folder) / "large.nps", SHAPES, RATE, ["large"])
        compiled.MIN_ENTRIES = 1 << 62
        measured = [{"way": "numpy", **_measure(shipped)}]
        compiled.MIN_ENTRIES = least
        if compiled.warm_up():
            measured.append({"way": "compiled", **_measure(shipped)})
            measured.append({"way": "compiled, all at once", **_measure(shipped, at_once=True)})
        parallel.MAX_THREADS = 1
        measured.append({"way": "one thread", **_measure(large)})
        parallel.MAX_THREADS = most
        n_threads = min(parallel.n_cores(), most)
        measured.append({"way": f"{n_threads} threads", **_measure(large)})
        if compiled.is_available():
            way = f"{n_threads} threads, all at once"
            measured.append({"way": way, **_measure(large, at_once=True)})
    return measured


def _measure(path: Path, *, at_once: bool = False) -> dict[str, Any]:
    times = []
    with Container.open(path) as store:
        names = sorted(store.root.tasks)
        n_values = sum(entry.n_values for entry in store.task_reader(names[0]))
        for name in itertools.islice(itertools.cycle(names), REPEATS + 1):
            start = time.perf_counter()
            reader = store.task_reader(name)
            others = reader.directory.tensors.others
            is_done = at_once and reader.sign_blocks() is not None
            entries = tuple(others.values()) if is_done else tuple(reader)
            for _ in parallel.ordered_map(reader.record, entries, cost=attrgetter("n_values")):
                pass
            times.append((time.perf_counter() - start) * 1e3)
    del times[0]
    return {
        "store": path.name,
        "n_values": n_values,
        "milliseconds": {"min": min(times), "median": float(np.median(times))},
    }


def write_tasks(
    path: Path, shapes: Sequence[tuple[int, ...]], rate: float, names: Sequence[str]
) -> Path:
    """A store of tasks whose positions are distributed as dither would have them."""
    rng = np.random.default_rng(0)
    base = [BaseTensor(f"w{i}", "BF16", shape, "0" * 32) for i, shape in enumerate(shapes)]
    with ContainerWriter.create(path) as writer:
        writer.set_base(storage="external", tensors=base)
        for name in names:
            write_task(writer, name, base, rate, rng)
        writer.commit()
    return path


def write_task(
    writer: ContainerWriter,
    name: str,
    base: Sequence[BaseTensor],
    rate: float,
    rng: np.random.Generator,
    *,
    scale: float = 1.0,
    files: Mapping[str, FileRef] | None = None,
) -> None:
    """One task of random signs; not committed."""
    with writer.begin_task(name, dither=name) as task:
        for index, tensor in enumerate(base):
            seed = dither.tensor_seed(name, tensor.name)
            positions = _positions(rng, tensor.numel, rate, seed)
            levels = rng.choice(np.array([-1, 1], np.int8), positions.size)
            scales = np.full(1, scale, np.float32)
            record = SparseLevels(tensor.numel, positions, levels, scales, seed)
            task.add(tensor.name, dtype=tensor.dtype, shape=tensor.shape, base=index,
                     record=record)  # fmt: skip
        task.finish(files=dict(files or {}))


def _positions(rng: np.random.Generator, numel: int, rate: float, seed: int) -> NDArray[np.int64]:
    n = max(1, int(numel * rate))
    kept = rng.random(n) * rng.gamma(2.5, size=n) ** 1.5 * rate / math.gamma(2.5)
    ranks = (kept * 65536).clip(0, 65535).astype(np.uint16)
    blocks = rng.integers(0, -(-numel // 65536), n)
    positions = np.unique(dither.positions_of(seed, blocks, ranks))
    return positions[positions < numel]
