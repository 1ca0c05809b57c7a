"""`nps ls`: what is in a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nps_store.cli import arguments as arg
from nps_store.cli.output import emit, share, size, table
from nps_store.task import task_nbytes

if TYPE_CHECKING:
    from formats.container import Container
    from nps_store.recipes import VirtualTask


def ls(store: arg.StorePath, as_json: arg.Json = False) -> None:
    """List the tasks of a store. The base is not needed.

    A task whose directory is damaged is listed as such, and is the error that the verb ends with.

    Example: nps ls tasks.nps
    """
    from formats.container import Container
    from formats.errors import FormatError
    from nps_store.errors import RecipeError
    from nps_store.recipes import Catalog

    tasks, damage = [], {}
    with Container.open(store) as container:
        virtual = Catalog(container.root.recipes, container.root.tasks).names
        for name in sorted({*container.root.tasks, *virtual}):
            try:
                tasks.append(describe(container, name))
            except (FormatError, RecipeError) as error:
                damage[name] = error
        document = {
            "schema": "nps.ls/1",
            "store": str(store),
            "nbytes": container.nbytes,
            "generation": container.generation,
            "base": {"name": container.base.meta.get("name"), "storage": container.base.storage},
            "tasks": tasks,
            "damaged": sorted(damage),
        }
    rows = table("task", "method", "dense", "stored", "ratio", "quality", "created",
                 right=("dense", "stored", "ratio", "quality"))  # fmt: skip
    for task in tasks:
        quality = task["quality"]
        rows.add_row(
            task["name"],
            task["method"],
            size(task["dense_nbytes"]),
            size(task["nbytes"]),
            "-" if "members" in task else f"{task['dense_nbytes'] / task['nbytes']:.0f}x",
            share(quality["value"] if quality else None),
            task["created"],
        )
    for name in damage:
        rows.add_row(name, "damaged")
    emit(document, as_json=as_json, text=rows)
    for first in damage.values():
        raise first


def describe(container: Container, name: str) -> dict[str, Any]:
    """What is known of a task without its weights; raises like `Container.directory`."""
    from nps_store.recipes import Catalog

    root = container.root
    virtual = None if name in root.tasks else Catalog(root.recipes, root.tasks).find(name)
    return _stored(container, name) if virtual is None else _virtual(container, virtual)


def _virtual(container: Container, task: VirtualTask) -> dict[str, Any]:
    """Its bytes are the recipe's, which all tasks of the recipe share."""
    recipe = task.recipe
    return {
        "name": task.name,
        "method": f"recipe: {recipe.rule} of {len(recipe.members)}",
        "nbytes": recipe.nbytes,
        "dense_nbytes": _stored(container, task.head)["dense_nbytes"],
        "quality": recipe.meta.get("quality"),
        "target": None,
        "created": str(recipe.meta.get("created", "-")),
        "members": {member: list(weights) for member, weights in recipe.members.items()},
        "head": task.head,
    }


def _stored(container: Container, name: str) -> dict[str, Any]:
    directory = container.directory(name)
    meta: dict[str, Any] = dict(directory.meta)
    return {
        "name": name,
        "method": str(meta.get("method", "-")),
        "nbytes": task_nbytes(container, name),
        "dense_nbytes": int(meta.get("source", {}).get("nbytes", 0)),
        "quality": meta.get("quality"),
        "target": meta.get("target"),
        "created": str(meta.get("created", "-")),
        "content_hash": container.root.tasks[name].content_hash,
    }
