"""`nps rm`: take tasks out of a store."""

from __future__ import annotations

from typing import Annotated

import typer

from nps_store.cli import arguments as arg
from nps_store.cli.output import emit


def rm(
    store: arg.StorePath,
    name: Annotated[list[str], typer.Argument(help="Tasks to remove.", show_default=False)],
    as_json: arg.Json = False,
) -> None:
    """Remove tasks; their bytes are reclaimed by `nps compact`.

    Example: nps rm tasks.nps role
    """
    from formats.writer import ContainerWriter

    with ContainerWriter.open(store) as writer:
        for task in name:
            writer.remove_task(task)
        generation = writer.commit()
    emit(
        {"schema": "nps.rm/1", "store": str(store), "removed": name, "generation": generation},
        as_json=as_json,
        text=f"removed {', '.join(name)}; run `nps compact {store}` to reclaim the bytes",
    )
