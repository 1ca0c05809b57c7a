"""`nps add`: fine-tunes into an existing store."""

from __future__ import annotations

from typing import Annotated

import typer

from nps_store.cli import arguments as arg
from nps_store.cli.compress import document, summary
from nps_store.cli.compression_options import CompressionOptions, with_compression_options
from nps_store.cli.output import emit


@with_compression_options
def add(
    store: arg.StorePath,
    given: CompressionOptions,
    base: arg.BaseDir = None,
    replace: Annotated[bool, typer.Option(help="Replace tasks of the same name.")] = False,
    as_json: arg.Json = False,
) -> None:
    """Compress full fine-tunes into a store that exists; a running server picks them up.

    Example: nps add tasks.nps --task use=ft/use --calib use=use.jsonl --target 0.99
    """
    from nps_store.compress import add as run

    with given.progress(quiet=as_json) as progress:
        stored = run(
            store,
            given.sources(),
            base=base,
            options=given.to_options(),
            replace=replace,
            jobs=given.jobs,
            journal=given.journal,
            progress=progress,
        )
    emit(document("nps.add/1", store, stored), as_json=as_json, text=summary(stored))
