"""`nps verify`: is everything in a store as it was written?"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nps_store.cli import arguments as arg
from nps_store.cli.output import emit

PROBLEMS_FOUND = 3


class Level(StrEnum):
    """How deep to look; each level includes those before it."""

    structure = "structure"
    checksums = "checksums"
    decode = "decode"
    base = "base"


def verify(
    store: arg.StorePath,
    level: Annotated[Level, typer.Option(help="How deep to look.")] = Level.decode,
    base: arg.BaseDir = None,
    as_json: arg.Json = False,
) -> None:
    """Check a store and report every problem; exit code 3 if there is one.

    Example: nps verify tasks.nps --level base --base all-MiniLM-L6-v2
    """
    from formats.writer import verify as check

    depth = Level.decode if level is Level.base else level
    problems = [finding.message for finding in check(store, depth.value)]
    if level is Level.base and not problems:
        problems = _against_base(store, base)
    emit(
        {
            "schema": "nps.verify/1",
            "store": str(store),
            "level": level.value,
            "ok": not problems,
            "problems": problems,
        },
        as_json=as_json,
        text="\n".join(problems) or f"{store}: no problem found ({level.value})",
    )
    if problems:
        raise typer.Exit(PROBLEMS_FOUND)


def _against_base(path: Path, base: Path | None) -> list[str]:
    """Put every task on the base; opening identifies it tensor by tensor."""
    from nps_store.errors import NpsError
    from nps_store.store import Store

    problems = []
    try:
        with Store.open(path, base=base) as store:
            for name in store.tasks:
                try:
                    for _ in store.tensors(name):
                        pass
                except NpsError as error:
                    problems.append(str(error))
    except NpsError as error:
        problems.append(str(error))
    return problems
