"""`nps rm`: take tasks out of a store."""

from __future__ import annotations

from typing import Annotated

import typer

from nps_store.cli import arguments as arg
from nps_store.cli.output import emit


def rm(
    store: arg.StorePath,
    name: Annotated[list[str], typer.Argument(help="Tasks or recipes.", show_default=False)],
    as_json: arg.Json = False,
) -> None:
    """Remove tasks and recipes; their bytes are reclaimed by `nps compact`.

    A task that a recipe is made of goes only together with it.

    Example: nps rm tasks.nps role
    """
    from nps_store.recipes.writing import remove

    generation = remove(store, name)
    emit(
        {"schema": "nps.rm/1", "store": str(store), "removed": name, "generation": generation},
        as_json=as_json,
        text=f"removed {', '.join(name)}; run `nps compact {store}` to reclaim the bytes",
    )
