"""`nps compress`: fine-tunes into a new store. Also what `nps add` shares with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nps_store.cli import arguments as arg
from nps_store.cli.compression_options import CompressionOptions, with_compression_options
from nps_store.cli.output import emit, share, size, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from nps_store.compress.decision import Stored


@with_compression_options
def compress(
    base: Annotated[Path, typer.Option(help="Hugging Face directory of the base.")],
    out: Annotated[Path, typer.Option(help="The store to create (.nps).")],
    given: CompressionOptions,
    base_storage: Annotated[
        arg.BaseStorage, typer.Option(help="Leave the base where it is, or store it too.")
    ] = arg.BaseStorage.external,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing store.")] = False,
    as_json: arg.Json = False,
) -> None:
    """Compress full fine-tunes of one base into a new store.

    Example: nps compress --base MiniLM --task role=ft/role --calib role=role.jsonl --out tasks.nps
    """
    from nps_store.compress import compress as run

    with given.progress(quiet=as_json) as progress:
        stored = run(
            base,
            given.sources(),
            out,
            options=given.to_options(),
            embed_base=base_storage is arg.BaseStorage.embed,
            overwrite=overwrite,
            jobs=given.jobs,
            journal=given.journal,
            progress=progress,
        )
    emit(document("nps.compress/1", out, stored), as_json=as_json, text=summary(stored))


def document(schema: str, store: Path, stored: Sequence[Stored]) -> dict[str, Any]:
    """The JSON document of a compression."""
    return {
        "schema": schema,
        "store": str(store),
        "store_nbytes": store.stat().st_size,
        "tasks": [
            {
                "name": task.name,
                "nbytes": task.nbytes,
                "dense_nbytes": task.dense_nbytes,
                "keep": task.keep,
                "target": task.target,
                "quality": None if task.quality is None else task.quality.to_json(),
                "n_truncated": task.n_truncated,
                "seconds": round(task.seconds, 3),
            }
            for task in stored
        ],
    }


def summary(stored: Sequence[Stored]) -> Table:
    """A table of what was stored."""
    rows = table("task", "dense", "stored", "kept", "quality", "95 %", "seconds",
                 right=("dense", "stored", "kept", "quality", "seconds"))  # fmt: skip
    for task in stored:
        quality = task.quality
        rows.add_row(
            task.name,
            size(task.dense_nbytes),
            size(task.nbytes),
            f"{task.keep:.3%}",
            share(None if quality is None else quality.value),
            "" if quality is None else f"{quality.low:.3f} .. {quality.high:.3f}",
            f"{task.seconds:.1f}",
        )
    return rows
