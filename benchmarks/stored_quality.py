"""How good the tasks of a store are, as they are stored, on data that compression did not see.

nps bench quality tasks.nps --data role=role.test.jsonl --dense role=finetunes/role
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from benchmarks.machine import circumstances
from nps_store.cli.output import share, size
from nps_store.evaluate import evaluate_task
from nps_store.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMA = "nps.bench-stored-quality/1"


def measure(
    path: Path,
    *,
    data: Mapping[str, Path],
    dense: Mapping[str, Path],
    base: Path | None,
    device: str,
) -> dict[str, Any]:
    """Evaluate every task that there are data of.

    Args:
        path: The store.
        data: JSON lines by task.
        dense: Directories of dense fine-tunes by task, where there are any.
        base: Directory of an external base.
        device: Where to run.
    """
    with Store.open(path, base=base) as store:
        rows = [
            measure_task(store, name, data=file, dense=dense.get(name), device=device)
            for name, file in data.items()
        ]
    return {
        "schema": SCHEMA,
        "command": f"nps bench quality {path}",
        **circumstances(device),
        "seed": None,
        "store": str(path),
        "tasks": rows,
    }


def measure_task(
    store: Store, name: str, *, data: Path, dense: Path | None, device: str
) -> dict[str, Any]:
    """One task: its metric stored, dense and of the base, and its bytes."""
    found = evaluate_task(store, name, data=data, dense=dense, device=device).to_json()
    task = store.task(name)
    return {
        "task": name,
        **{key: found[key] for key in ("metric", "base", "dense", "stored", "ratio", "gain_kept",
                                       "agreement", "n_examples", "n_truncated")},
        "nbytes": task.nbytes,
        "dense_nbytes": task.dense_nbytes,
    }  # fmt: skip


def table(result: Mapping[str, Any]) -> Table:
    """A line for each task."""
    made = Table("task", "metric", "base", "dense", "stored", "stored / dense", "gain kept",
                 "95 %", "examples", "bytes")  # fmt: skip
    for row in result["tasks"]:
        kept = row["gain_kept"]
        made.add_row(
            row["task"], row["metric"],
            *(_number(row[key]) for key in ("base", "dense", "stored")),
            share(row["ratio"]),
            share(kept["value"] if kept else None),
            f"{kept['low']:.3f} .. {kept['high']:.3f}" if kept else "-",
            str(row["n_examples"]), size(row["nbytes"]),
        )  # fmt: skip
    return made


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
