"""`nps eval`: the metric of a task as it is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nps_store.cli import arguments as arg
from nps_store.cli.output import emit, table


def evaluate(
    store: arg.StorePath,
    task: arg.TaskName,
    data: Annotated[Path, typer.Option(help='Lines {"text", "label"} to evaluate on.')],
    base: arg.BaseDir = None,
    dense: Annotated[
        Path | None, typer.Option(help="Directory of the dense fine-tune to compare with.")
    ] = None,
    device: arg.Device = "cpu",
    as_json: arg.Json = False,
) -> None:
    """Evaluate a stored task: accuracy of a classifier, similarity to the dense one of others.

    Example: nps eval tasks.nps role --data role.test.jsonl --dense ft/role
    """
    from nps_store.evaluate import evaluate_task
    from nps_store.store import Store

    with Store.open(store, base=base) as opened:
        result = evaluate_task(opened, task, data=data, dense=dense, device=device)
    rows = table("metric", "stored", "dense", "ratio", right=("stored", "dense", "ratio"))
    rows.add_row(
        result.metric,
        f"{result.stored:.4f}",
        "-" if result.dense is None else f"{result.dense:.4f}",
        "-" if result.ratio is None else f"{result.ratio:.4f}",
    )
    emit(
        {"schema": "nps.eval/1", "store": str(store), "task": task, **result.to_json()},
        as_json=as_json,
        text=rows,
    )
