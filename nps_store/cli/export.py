"""`nps export`: a task as an ordinary Hugging Face directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nps_store.cli import arguments as arg
from nps_store.cli.output import emit, size


def export(
    store: arg.StorePath,
    task: arg.TaskName,
    out: Annotated[Path, typer.Option(help="Directory to create.")],
    base: arg.BaseDir = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing directory.")] = False,
    as_json: arg.Json = False,
) -> None:
    """Write a task's weights and files as a directory that `from_pretrained` loads.

    Example: nps export tasks.nps role --out role-restored
    """
    from nps_store.export import export_task
    from nps_store.store import Store

    with Store.open(store, base=base) as opened:
        nbytes = export_task(opened, task, out, overwrite=overwrite)
    emit(
        {"schema": "nps.export/1", "task": task, "out": str(out), "nbytes": nbytes},
        as_json=as_json,
        text=f"{out}: {size(nbytes)} of weights",
    )
