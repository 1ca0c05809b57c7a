"""How fast and how small the container is, beside the obvious ways to do the same.

    python -m benchmarks.container

In one process, on one core: decoding kept positions, those of whole tasks by their dither beside
their gaps, one task (a large one on all cores too), packed levels, opening a store of a thousand
tasks, reading a large task beside reading its bytes, and what masks, signs and levels of the
shipped store take beside their entropy and other encodings.
"""

from __future__ import annotations

import math
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zstandard
from rich.console import Console
from rich.table import Table

from benchmarks import packed_levels, task_reads
from benchmarks.machine import circumstances, write_result
from formats import Container, ContainerWriter, dither
from formats.codecs import bitmap, compiled, ranked, rice
from formats.index import BaseTensor
from formats.records import DenseBits, DenseLevels, SparseLevels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STORE = Path("examples") / "debian-8tasks.nps"
RESULT = Path("benchmarks") / "results" / "container.json"
NUMEL = 1 << 26
RATES = (0.002, 0.01, 0.05)
N_TASKS = 1000
READ_NBYTES = 256 << 20


def main() -> None:
    """Measure, write the result, show it."""
    result = {
        "schema": "nps.bench-container/1",
        "command": "python -m benchmarks.container",
        **circumstances(),
        "numba": _numba(),
        "decode": [_decode(rate) for rate in RATES],
        "tasks": [_tasks(coding) for coding in ("gaps", "ranks")],
        "task_reads": task_reads.measure(STORE),
        "levels": packed_levels.measure(),
        "open": _open(),
        "read": _read(),
        "size": _size(),
    }
    write_result(RESULT, result)
    _show(result)


def _numba() -> str | None:
    try:
        return version("numba")
    except PackageNotFoundError:
        return None


def _best_s(run: Callable[[], object], *, repeats: int = 9) -> float:
    """Best wall time; the first run, which may compile, does not count."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _decode(rate: float) -> dict[str, Any]:
    """Million kept entries a second of every way to positions, and bits a parameter."""
    positions = _dithered(NUMEL, rate, seed=0)
    coded = rice.encode(positions, NUMEL)
    if coded is None:
        raise RuntimeError("blocks do not fit")
    headers, payloads = coded
    segments, ranks = ranked.encode(positions, NUMEL, 0)
    packed = bitmap.encode(positions, NUMEL)
    frame = zstandard.ZstdCompressor(level=19).compress(packed)
    unzip = zstandard.ZstdDecompressor()
    n = positions.size

    def by_numpy(decode: Callable[[], object]) -> Callable[[], object]:
        def run() -> object:
            least, compiled.MIN_ENTRIES = compiled.MIN_ENTRIES, 1 << 62
            try:
                return decode()
            finally:
                compiled.MIN_ENTRIES = least

        return run

    def from_rice() -> object:
        return rice.decode(headers, payloads, NUMEL, n)

    def from_ranks() -> object:
        return ranked.decode(segments, ranks, NUMEL, n, 0)

    def from_bitmap() -> object:
        return bitmap.decode(packed, NUMEL, n)

    def from_frame() -> object:
        return bitmap.decode(unzip.decompress(frame), NUMEL, n)

    ways: dict[str, tuple[Callable[[], object], int]] = {
        "rice, numpy": (by_numpy(from_rice), len(headers) + len(payloads)),
        "ranked, numpy": (by_numpy(from_ranks), len(segments) + len(ranks)),
        "bitmap, numpy": (by_numpy(from_bitmap), len(packed)),
        "bitmap in zstd, numpy": (by_numpy(from_frame), len(frame)),
        "unpackbits and flatnonzero": (
            lambda: np.flatnonzero(np.unpackbits(np.frombuffer(packed, np.uint8))),
            len(packed),
        ),
        "int32 positions, copied": (lambda: positions.astype(np.int32).copy(), 4 * n),
    }
    if compiled.warm_up():
        ways["rice, compiled"] = (from_rice, len(headers) + len(payloads))
        ways["ranked, compiled"] = (from_ranks, len(segments) + len(ranks))
        ways["bitmap, compiled"] = (from_bitmap, len(packed))
    return {
        "rate": rate,
        "n_kept": n,
        "entropy_bits_per_parameter": _entropy(np.array([n, NUMEL - n])) / NUMEL,
        "ways": {
            name: {
                "entries_per_s": n / _best_s(run, repeats=9 if "compiled" in name else 2),
                "bits_per_parameter": 8 * nbytes / NUMEL,
            }
            for name, (run, nbytes) in ways.items()
        },
    }


def _dithered(numel: int, rate: float, *, seed: int) -> np.ndarray:
    """int64 positions of a dithered selection of magnitudes as fine-tunes have them."""
    rng = np.random.default_rng(seed % (1 << 32))
    magnitudes = rng.standard_exponential(numel, dtype=np.float32) ** np.float32(1.5)
    kept = dither.uniform(seed, 0, numel) < magnitudes * np.float32(rate / math.gamma(2.5))
    return np.flatnonzero(kept).astype(np.int64)


def _tasks(coding: str) -> dict[str, Any]:
    """Seconds to write and read tasks with tensors and counts of the shipped ones, dithered."""
    with Container.open(STORE) as store, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy.nps"
        base = store.base.tensors
        made = {name: list(_made(store, name, coding)) for name in store.root.tasks}
        start = time.perf_counter()
        with ContainerWriter.create(path) as writer:
            writer.set_base(storage="external", tensors=base)
            for name, records in made.items():
                with writer.begin_task(name, dither=name) as task:
                    for index, record in records:
                        task.add(base[index].name, dtype=base[index].dtype, base=index,
                                 shape=base[index].shape, record=record)  # fmt: skip
                    task.finish()
            writer.commit()
        write_s = time.perf_counter() - start

        def read() -> None:
            with Container.open(path) as copy:
                for name in copy.root.tasks:
                    reader = copy.task_reader(name)
                    for entry in reader:
                        reader.record(entry)

        return {
            "coding": coding,
            "n_tasks": len(made),
            "n_kept": sum(len(r.positions) for task in made.values() for _, r in task),
            "nbytes": path.stat().st_size,
            "write_s": write_s,
            "read_s": _best_s(read, repeats=5),
        }


def _made(store: Container, task: str, coding: str) -> Iterator[tuple[int, SparseLevels]]:
    """Dithered records in place of a task's sparse ones."""
    for entry in store.directory(task).tensors:
        if entry.base is None or entry.record is None or not entry.record.n_kept:
            continue
        tensor = store.base.tensors[entry.base]
        seed = dither.tensor_seed(task, tensor.name)
        positions = _dithered(tensor.numel, entry.record.n_kept / tensor.numel, seed=seed)
        levels = np.where(np.random.default_rng(0).random(positions.size) < 0.5, -1, 1)
        one = np.ones(1, np.float32)
        known = seed if coding == "ranks" else None
        yield entry.base, SparseLevels(tensor.numel, positions, levels.astype(np.int8), one, known)


def _open() -> dict[str, Any]:
    """Milliseconds to open a store of a thousand tasks, and to read its size with stat."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.nps"
        one = np.zeros(8, np.uint8)
        with ContainerWriter.create(path) as writer:
            tensors = [BaseTensor("w", "U8", (8,), "0" * 32)]
            writer.set_base(storage="external", tensors=tensors)
            for number in range(N_TASKS):
                with writer.begin_task(f"task {number}") as task:
                    record = DenseBits(8, one, "U8")
                    task.add("w", dtype="U8", shape=(8,), base=0, record=record)
                    task.finish()
            writer.commit()
        times = []
        for _ in range(200):
            start = time.perf_counter()
            Container.open(path).close()
            times.append((time.perf_counter() - start) * 1e3)
        return {
            "n_tasks": N_TASKS,
            "milliseconds": {q: float(np.percentile(times, float(q[1:]))) for q in _QUANTILES},
            "n": len(times),
        }


_QUANTILES = ("p1", "p50", "p99")


def _read() -> dict[str, Any]:
    """Seconds to read a large task, verified, beside reading as many bytes with ``read()``."""
    bits = np.random.default_rng(0).integers(0, 256, READ_NBYTES // 8, dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.nps"
        with ContainerWriter.create(path) as writer:
            writer.set_base(storage="external", tensors=[])
            with writer.begin_task("large") as task:
                for part in range(8):
                    record = DenseBits(bits.size, bits, "U8")
                    task.add(f"w{part}", dtype="U8", shape=bits.shape, base=None, record=record)
                task.finish()
            writer.commit()
        raw = Path(folder) / "raw"
        raw.write_bytes(path.read_bytes())
        nbytes = raw.stat().st_size
        buffer = bytearray(nbytes)
        target = np.frombuffer(buffer, np.uint8)

        def read_task(*, copy: bool) -> None:
            at = 0
            with Container.open(path) as store:
                reader = store.task_reader("large")
                for entry in reader:
                    record = reader.record(entry)
                    if copy and isinstance(record, DenseBits):
                        target[at : at + record.numel] = record.bits
                        at += record.numel

        def read_raw() -> None:
            with raw.open("rb", buffering=0) as file:
                file.readinto(buffer)

        mapped, plain = _paired(lambda: read_task(copy=False), read_raw)
        copied, plain_again = _paired(lambda: read_task(copy=True), read_raw)
    return {
        "nbytes": nbytes,
        "task_verified_s": mapped,
        "task_verified_and_copied_s": copied,
        "read_s": plain,
        "ratio": mapped / plain,
        "ratio_copied": copied / plain_again,
        "note": "median of alternating runs into memory at hand; page cache warm",
    }


def _paired(
    first: Callable[[], object], second: Callable[[], object], *, repeats: int = 15
) -> tuple[float, float]:
    """Median seconds of two things done in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for run, noted in zip((first, second), times, strict=True):
            start = time.perf_counter()
            run()
            noted.append(time.perf_counter() - start)
    return float(np.median(times[0])), float(np.median(times[1]))


def _entropy(counts: np.ndarray) -> float:
    """Bits of that many independent draws at their own frequencies."""
    counts = counts[counts > 0]
    return float((counts * np.log2(counts.sum() / counts)).sum())


def _size() -> dict[str, Any]:
    """Stored bytes of the shipped store's masks, signs and levels beside their entropy."""
    tasks: dict[str, Any] = {}
    with Container.open(STORE) as store:
        shared = store.root.base.nbytes + store.selection.pointer.nbytes
        for name, entry in store.root.tasks.items():
            tasks[name] = _task_size(store, name)
            tasks[name]["metadata_nbytes"] = entry.directory.nbytes + shared / len(store.root.tasks)
    total = {key: sum(task[key] for task in tasks.values()) for key in next(iter(tasks.values()))}
    stored = total["index_nbytes"] + total["signs_nbytes"] + total["levels_nbytes"]
    return {
        "store": STORE.name,
        "tasks": tasks,
        "stored_over_entropy": stored / total["entropy_nbytes"],
        "metadata_nbytes_per_task": max(task["metadata_nbytes"] for task in tasks.values()),
        "others_nbytes": {
            key: total[key] for key in ("bitmap_nbytes", "bitmap_zstd_nbytes", "int32_nbytes")
        },
        "index_nbytes": total["index_nbytes"],
    }


def _task_size(store: Container, name: str) -> dict[str, float]:
    """Bytes by part; the entropy is that of every tensor's own frequencies."""
    reader = store.task_reader(name)
    streams = {
        stream: sum(ref.nbytes for ref in refs) for stream, refs in reader.directory.streams.items()
    }
    entropy = bits = packed = zipped = 0.0
    for entry in reader:
        record = reader.record(entry)
        if isinstance(record, SparseLevels):
            n = record.positions.size
            entropy += _entropy(np.array([n, record.numel - n]))
            entropy += _entropy(np.unique(record.levels, return_counts=True)[1])
            mask = bitmap.encode(record.positions, record.numel)
            packed += len(mask)
            zipped += len(zstandard.ZstdCompressor(level=3).compress(mask))
            bits += 4 * n
        elif isinstance(record, DenseLevels):
            entropy += _entropy(np.unique(record.levels, return_counts=True)[1])
    index = sum(streams.get(stream, 0) for stream in _INDEX_STREAMS)
    return {
        "entropy_nbytes": entropy / 8,
        "index_nbytes": index,
        "signs_nbytes": streams.get("signs", 0) + streams.get("magnitudes", 0),
        "levels_nbytes": streams.get("levels", 0) + streams.get("outliers", 0),
        "bitmap_nbytes": packed,
        "bitmap_zstd_nbytes": zipped,
        "int32_nbytes": bits,
    }


_INDEX_STREAMS = ("blocks", "gaps", "bitmap", "segments", "ranks")


def _show(result: dict[str, Any]) -> None:
    table = Table("rate", "way", "M entries/s", "bits/parameter")
    for decoded in result["decode"]:
        for name, way in decoded["ways"].items():
            table.add_row(f"{decoded['rate']:.3f}", name, f"{way['entries_per_s'] / 1e6:.1f}",
                          f"{way['bits_per_parameter']:.4f}")  # fmt: skip
    console = Console()
    console.print(table)
    for tasks in result["tasks"]:
        console.print(
            f"{tasks['n_tasks']} tasks, {tasks['n_kept']} kept, by {tasks['coding']}: "
            f"{tasks['nbytes']} bytes, written in {tasks['write_s']:.2f} s, "
            f"read in {tasks['read_s'] * 1e3:.0f} ms"
        )
    for one in result["task_reads"]:
        console.print(
            f"one task of {one['store']}, {one['n_values']} values, {one['way']}: "
            f"{one['milliseconds']['median']:.1f} ms"
        )
    for levels in result["levels"]:
        console.print(
            f"levels, {levels['tails']}, {levels['entropy_bits']:.2f} bits: "
            f"{levels['over_entropy']:.3f}x entropy, read at "
            f"{levels['decode_levels_per_s'] / 1e6:.0f} M/s"
        )
    opened, read, size = result["open"], result["read"], result["size"]
    console.print(
        f"open, {opened['n_tasks']} tasks: {opened['milliseconds']['p50']:.2f} ms; "
        f"verified read: {read['ratio']:.2f}x read(), {read['ratio_copied']:.2f}x with a copy; "
        f"shipped store: {size['stored_over_entropy']:.4f}x entropy, "
        f"{size['metadata_nbytes_per_task']:.0f} bytes of metadata a task"
    )


if __name__ == "__main__":
    main()
