"""`nps eval`: the metric of a task as it is stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nps_store.cli import arguments as arg
from nps_store.cli.output import emit, share, table

if TYPE_CHECKING:
    from rich.table import Table

    from nps_store.evaluate import Evaluation


def evaluate(
    store: arg.StorePath,
    task: arg.TaskName,
    data: Annotated[
        Path,
        typer.Option(
            help='Lines {"text", "label"} to evaluate on; a language model needs no label.'
        ),
    ],
    base: arg.BaseDir = None,
    dense: Annotated[
        Path | None, typer.Option(help="Directory of the dense fine-tune to compare with.")
    ] = None,
    device: arg.Device = "cpu",
    as_json: arg.Json = False,
) -> None:
    """Evaluate a stored task: accuracy of a classifier, loss and perplexity of a language model,
    similarity to the dense fine-tune of an embedding.

    Example: nps eval tasks.nps role --data role.test.jsonl --dense ft/role
    """
    from nps_store.evaluate import evaluate_task
    from nps_store.store import Store

    with Store.open(store, base=base) as opened:
        result = evaluate_task(opened, task, data=data, dense=dense, device=device)
    emit(
        {"schema": "nps.eval/1", "store": str(store), "task": task, **result.to_json()},
        as_json=as_json,
        text=_summary(result),
    )


def _summary(result: Evaluation) -> Table:
    """Base, stored task and dense fine-tune side by side."""
    numbers = ("base", "stored", "dense", "ratio", "gain kept", "95 %")
    rows = table("metric", *numbers, right=numbers)
    kept = result.gain_kept
    rows.add_row(
        result.metric,
        *(_number(value) for value in (result.base, result.stored, result.dense, result.ratio)),
        share(None if kept is None else kept.value),
        "" if kept is None else f"{kept.low:.3f} .. {kept.high:.3f}",
    )
    if result.perplexity is not None:
        values = [_number(result.perplexity[name]) for name in ("base", "stored", "dense")]
        rows.add_row("perplexity", *values, "", "", "")
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
