"""The store that the repository ships: how it is made, and what it is worth.

    python -m benchmarks.zoo --out zoo --device cuda
    python -m benchmarks.shipped build --zoo zoo --device cuda
    python -m benchmarks.shipped measure --zoo zoo

`build` sees the calibration split only; `measure` evaluates the file on the test split.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import debian, minilm
from benchmarks.machine import circumstances, write_result
from benchmarks.stored_quality import measure_task
from nps_store.cli.progress import CompressProgress
from nps_store.compress import Options, TaskSource, compress
from nps_store.store import Store

if TYPE_CHECKING:
    from nps_store.task import Task

EXAMPLES = Path("examples")
STORE = EXAMPLES / "debian-8tasks.nps"
BASE = EXAMPLES / "all-MiniLM-L6-v2"
RESULT = Path("benchmarks") / "results" / "shipped.json"
KEEP = 0.004
EVALUATIONS = 24
"""The weight search starts near its end; so few make a build of minutes on two cores."""

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
ZooDir = Annotated[Path, typer.Option(help="Folder of the fine-tunes.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]


def link_base() -> Path:
    """The base beside the store, so that the store names no place of one machine."""
    if not BASE.is_dir():
        BASE.unlink(missing_ok=True)
        BASE.symlink_to(minilm.base_dir(), target_is_directory=True)
    return BASE


@app.command()
def build(
    zoo: ZooDir = Path("zoo"), device: Device = "cpu", out: Path = STORE, jobs: int = 1
) -> None:
    """Compress the eight fine-tunes of the zoo into the store."""
    tasks = [
        TaskSource(
            name,
            zoo / name,
            debian.write_jsonl(zoo / "data" / f"{name}.calibration.jsonl", name, "calibration"),
        )
        for name in debian.TASKS
    ]
    options = Options(keep=KEEP, evaluations=EVALUATIONS, device=device)
    with CompressProgress(quiet=False) as progress:
        compress(
            link_base(), tasks, out,
            options=options, overwrite=True, progress=progress, jobs=jobs,
        )  # fmt: skip


@app.command()
def measure(zoo: ZooDir = Path("zoo"), device: Device = "cpu", store: Path = STORE) -> None:
    """Evaluate every stored task on its test split, beside its dense fine-tune."""
    with Store.open(store, base=link_base()) as opened:
        rows = [_measure_task(opened, opened.task(name), zoo, device) for name in opened.tasks]
    result = {
        "schema": "nps.bench-shipped/1",
        "command": "python -m benchmarks.shipped measure",
        **circumstances(device),
        "store_nbytes": store.stat().st_size,
        "mean_ratio": sum(row["ratio"] for row in rows) / len(rows),
        "max_task_nbytes": max(row["nbytes"] for row in rows),
        "tasks": rows,
    }
    write_result(RESULT, result)
    table = Table("task", "dense", "stored", "ratio", "bytes")
    for row in rows:
        figures = f"{row['dense']:.4f}", f"{row['stored']:.4f}", f"{row['ratio']:.4f}"
        table.add_row(row["task"], *figures, f"{row['nbytes']:,}")
    table.add_row("mean", "", "", f"{result['mean_ratio']:.4f}", f"{result['store_nbytes']:,}")
    Console().print(table)


def _measure_task(store: Store, task: Task, zoo: Path, device: str) -> dict[str, Any]:
    data = test_data(zoo, task.name)
    measured = measure_task(store, task.name, data=data, dense=zoo / task.name, device=device)
    about = {"keep": task.meta["keep"], "source_hash": task.meta["source"]["hash"]}
    return {**measured, **about}


def test_data(zoo: Path, task: str) -> Path:
    """The test split of a task as JSON lines."""
    return debian.write_jsonl(zoo / "data" / f"{task}.test.jsonl", task, "test")


if __name__ == "__main__":
    app()
