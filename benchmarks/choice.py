"""Choosing among a benchmark's methods on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def chosen_methods(asked: Sequence[str] | None, known: Iterable[str]) -> tuple[str, ...]:
    """Those that are asked for, else all.

    Raises:
        typer.BadParameter: There is none of that name.
    """
    names = tuple(known)
    unknown = {*(asked or ())} - {*names}
    if unknown:
        raise typer.BadParameter(f"no method {unknown.pop()!r}; there are {', '.join(names)}")
    return tuple(asked or names)
