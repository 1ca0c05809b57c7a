"""`nps add`: fine-tunes into an existing store."""

from __future__ import annotations

from typing import Annotated

import typer

from nps_store.cli import arguments as arg
from nps_store.cli.compress import document, summary
from nps_store.cli.output import CompressProgress, emit


def add(
    store: arg.StorePath,
    task: arg.Tasks,
    calib: arg.Calibrations = None,
    base: arg.BaseDir = None,
    replace: Annotated[bool, typer.Option(help="Replace tasks of the same name.")] = False,
    target: arg.Target = None,
    keep: arg.Keep = None,
    max_bytes: arg.MaxBytes = None,
    method: arg.MethodOption = arg.Method.nps,
    objective: arg.ObjectiveOption = arg.ObjectiveName.distill,
    dtype: arg.Dtype = None,
    seed: arg.Seed = 0,
    evaluations: arg.Evaluations = 60,
    search_seconds: arg.SearchSeconds = None,
    device: arg.Device = "cpu",
    as_json: arg.Json = False,
) -> None:
    """Compress full fine-tunes into a store that exists; a running server picks them up.

    Example: nps add tasks.nps --task use=ft/use --calib use=use.jsonl --target 0.99
    """
    from nps_store.compress import Options
    from nps_store.compress import add as run

    options = Options(
        method=method.value,
        target=target,
        keep=keep,
        max_nbytes=max_bytes,
        objective=objective.value,
        dtype=dtype,
        seed=seed,
        evaluations=evaluations,
        search_seconds=search_seconds,
        device=device,
    )
    with CompressProgress(quiet=as_json) as progress:
        stored = run(
            store,
            arg.task_sources(task, calib),
            base=base,
            options=options,
            replace=replace,
            progress=progress,
        )
    emit(document("nps.add/1", store, stored), as_json=as_json, text=summary(stored))
