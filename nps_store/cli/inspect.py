"""`nps inspect`: how a store or one of its tasks is made up."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group

from nps_store.cli import arguments as arg
from nps_store.cli.ls import describe
from nps_store.cli.output import emit, size, table

if TYPE_CHECKING:
    from formats.container import Container


def inspect(
    store: arg.StorePath,
    task: Annotated[str | None, typer.Argument(help="A task to look into.")] = None,
    as_json: arg.Json = False,
) -> None:
    """Show how a store is made up, or what was chosen for each tensor of a task.

    Example: nps inspect tasks.nps role
    """
    from formats.container import Container

    with Container.open(store) as container:
        if task is None:
            _inspect_store(container, as_json=as_json)
        elif task not in container.root.tasks and "members" in (facts := describe(container, task)):
            _inspect_recipe(facts, as_json=as_json)
        else:
            _inspect_task(container, task, as_json=as_json)


def _inspect_store(container: Container, *, as_json: bool) -> None:
    root, base = container.root, container.base
    numel = sum(math.prod(tensor.shape) for tensor in base.tensors)
    facts: dict[str, Any] = {
        "schema": "nps.inspect/1",
        "store": container.path,
        "nbytes": container.nbytes,
        "generation": container.generation,
        "base": {
            "name": base.meta.get("name"),
            "storage": base.storage,
            "path_hint": base.path_hint,
            "n_tensors": len(base.tensors),
            "numel": numel,
        },
        "tasks": sorted(root.tasks),
        "recipes": sorted(root.recipes),
        "task_nbytes": sum(entry.nbytes for entry in root.tasks.values()),
        "attached_files": len(root.files),
        "attached_nbytes": sum(stored.section.nbytes for stored in root.files.values()),
    }
    rows = table("fact", "value")
    rows.add_row("file", f"{size(container.nbytes)}, generation {container.generation}")
    rows.add_row("base", f"{base.meta.get('name')} ({base.storage}), {numel:,} parameters in "
                 f"{len(base.tensors)} tensors")  # fmt: skip
    rows.add_row("base is at", base.path_hint or "in the store")
    rows.add_row("tasks", f"{len(root.tasks)}, {size(facts['task_nbytes'])}")
    rows.add_row("attached files", f"{len(root.files)}, {size(facts['attached_nbytes'])}")
    emit(facts, as_json=as_json, text=rows)


def _inspect_recipe(facts: dict[str, Any], *, as_json: bool) -> None:
    rows = table("member", "weight, or weights of the layer groups", right=())
    for member, weights in facts["members"].items():
        rows.add_row(member, ", ".join(f"{weight:.4g}" for weight in weights))
    head = f"{facts['name']}: {facts['method']}, {facts['nbytes']} bytes, head of {facts['head']}"
    document = {"schema": "nps.inspect-recipe/1", **facts}
    emit(document, as_json=as_json, text=Group(head, rows))


def _inspect_task(container: Container, task: str, *, as_json: bool) -> None:
    directory = container.directory(task)
    tensors = []
    rows = table("tensor", "shape", "encoding", "kept", "bytes", "bits/param",
                 right=("kept", "bytes", "bits/param"))  # fmt: skip
    for entry in directory.tensors:
        numel = math.prod(entry.shape)
        kept = None if entry.record is None else entry.record.n_kept
        bits = 8 * entry.nbytes / max(numel, 1)
        tensors.append(
            {
                "name": entry.name,
                "shape": list(entry.shape),
                "encoding": entry.encoding,
                "n_kept": kept,
                "nbytes": entry.nbytes,
                "bits_per_parameter": bits,
            }
        )
        shape = "x".join(map(str, entry.shape)) or "scalar"
        rows.add_row(
            entry.name, shape, entry.encoding,
            "" if kept is None else f"{kept / max(numel, 1):.3%}",
            f"{entry.nbytes:,}", f"{bits:.4f}",
        )  # fmt: skip
    streams = {
        name: sum(section.nbytes for section in sections)
        for name, sections in directory.streams.items()
    }
    entry_nbytes = container.root.tasks[task].directory.nbytes
    facts = {
        "schema": "nps.inspect-task/1",
        **describe(container, task),
        "meta": dict(directory.meta),
        "directory_nbytes": entry_nbytes,
        "streams": streams,
        "files": {name: ref.nbytes for name, ref in directory.files.items()},
        "tensors": tensors,
    }
    parts = ", ".join(f"{name} {size(nbytes)}" for name, nbytes in sorted(streams.items()))
    head = f"{task}: {size(facts['nbytes'])} ({parts}, directory {size(entry_nbytes)})"
    made = json.dumps({key: directory.meta[key] for key in sorted(directory.meta)}, indent=1)
    emit(facts, as_json=as_json, text=Group(head, made, rows))
