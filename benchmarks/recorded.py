"""What the checked-in results say of given fine-tunes, found by the hash of their weights.

`shipped.json` knows the hash and the dense test accuracy of every shipped task; a point of
`quality.json` with that task and that accuracy was measured on the same fine-tune.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.machine import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RESULTS = ROOT / "benchmarks" / "results"
PEERS = ("lossless xor + zstd", "lossless zipnn", "BitDelta", "DeltaZip 2:4")
LOSSLESS = frozenset(PEERS[:2])


@dataclass(frozen=True)
class Peer:
    """Another way, as it was measured.

    Attributes:
        way: Method and setting.
        tasks: Bytes by task.
        lossless: Whether the fine-tunes come back bit for bit.
        source: File and commit.
        accuracy_ratio: Mean over the tasks; None where it was not measured.
    """

    way: str
    tasks: Mapping[str, float]
    lossless: bool
    source: str
    accuracy_ratio: float | None = None


def accuracy_ratio(hashes: Mapping[str, str]) -> float | None:
    """Of the shipped store, where these are its tasks."""
    shipped = read("shipped")
    is_same = {row["task"]: row["source_hash"] for row in shipped["tasks"]} == dict(hashes)
    return float(shipped["mean_ratio"]) if is_same else None


def footprint_line(way: str, hashes: Mapping[str, str]) -> Peer | None:
    """A line of `footprint.json`, where it is of the same fine-tunes."""
    path = RESULTS / "footprint.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"lines": []}
    for line in result["lines"]:
        if line["way"] == way and result["source_hashes"] == dict(hashes):
            return Peer(way, line["tasks"], line["lossless"], _source(path.name, result))
    return None


def peers(hashes: Mapping[str, str]) -> Iterator[Peer]:
    """Every setting of every peer that was measured on all of these fine-tunes."""
    dense = {
        row["task"]: row["dense"]
        for row in read("shipped")["tasks"]
        if hashes.get(row["task"]) == row["source_hash"]
    }
    if set(dense) != set(hashes):
        return
    quality = read("quality")
    found: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for point in quality["points"]:
        is_same = dense.get(point["task"]) == point["dense_accuracy"]
        is_delta = point["setting"].get("of") != "weights"  # what takes no base is made anew
        if point["method"] in PEERS and is_same and is_delta:
            found[point["method"], _words(point["setting"])][point["task"]] = point
    for (method, setting), points in sorted(found.items(), key=_by_nbytes):
        if set(points) == set(hashes):
            ratios = [point["accuracy_ratio"] for point in points.values()]
            yield Peer(
                f"{method}{setting}",
                {task: point["nbytes"] for task, point in points.items()},
                method in LOSSLESS,
                _source("quality.json", quality),
                sum(ratios) / len(ratios),
            )


def read(name: str) -> dict[str, Any]:
    """A checked-in result."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _words(setting: Mapping[str, Any]) -> str:
    """A peer's setting for people: `, 2 bit, embeddings too`."""
    bits = f", {setting['bits']} bit" if "bits" in setting else ""
    bits += f", of the {setting['of']}" if "of" in setting else ""
    return bits + (", embeddings too" if setting.get("embeddings") else "")


def _by_nbytes(item: tuple[tuple[str, str], dict[str, Any]]) -> tuple[int, float]:
    (method, _), points = item
    return PEERS.index(method), sum(point["nbytes"] for point in points.values())


def _source(name: str, result: Mapping[str, Any]) -> str:
    return f"results/{name}, {result['date']}, commit {result['commit']}"
