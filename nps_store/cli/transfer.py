"""`nps transfer`: a task by a part, so that more of the base's abilities stay."""

from __future__ import annotations

from typing import Annotated

import typer

from nps_store.cli import arguments as arg
from nps_store.cli.merge import created, report


def transfer(
    store: arg.StorePath,
    name: Annotated[str, typer.Option(help="Of the new task.", show_default=False)],
    task: Annotated[str, typer.Option(help="The task or recipe.", show_default=False)],
    share: Annotated[
        float, typer.Option("--lambda", help="How much of it: 0 is the base, 1 the task.")
    ] = 0.5,
    replace: Annotated[bool, typer.Option(help="Replace a recipe of the same name.")] = False,
    as_json: arg.Json = False,
) -> None:
    """Make a task that has a part of another's task vector.

    Example: nps transfer tasks.nps --name role-half --task role --lambda 0.5
    """
    from nps_store.recipes import Recipe
    from nps_store.recipes.writing import add_recipe

    recipe = Recipe({task: (share,)}, meta=created())
    names = add_recipe(store, name, recipe, replace=replace)
    report(store, name, recipe, names, schema="nps.transfer/1", as_json=as_json)
