"""Stores and tasks as notebooks show them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from nps_store.cli.output import share, size
from nps_store.errors import NpsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nps_store.store import Store
    from nps_store.task import Task


def store_html(store: Store) -> str:
    """A line for each task; one that is damaged is listed with what is wrong."""
    rows: list[tuple[str, ...]] = []
    for name in store.tasks:
        try:
            task = store.task(name)
        except NpsError as error:
            rows.append((name, str(error)))
            continue
        quality = task.meta.get("quality")
        kept = share(quality["value"] if quality else None)
        rows.append((name, _method(task), size(task.dense_nbytes), size(task.nbytes), kept))
    title = f"{store.path.name}: {len(rows)} tasks of {store.base_name}, {size(store.nbytes)}"
    return _table(title, ("task", "method", "dense", "stored", "quality"), rows)


def task_html(task: Task) -> str:
    """A line for each thing known."""
    rows = [
        ("method", _method(task)),
        ("dense", size(task.dense_nbytes)),
        ("stored", size(task.nbytes)),
        ("dtype", task.dtype),
        ("created", task.created),
    ]
    quality = task.meta.get("quality")
    if quality:
        kept = f"{quality['value']:.3f} (95 %: {quality['low']:.3f} .. {quality['high']:.3f})"
        rows.append(("gain kept", kept))
    labels = task.config.get("id2label")
    if labels:
        rows.append(("labels", ", ".join(map(str, labels.values()))))
    return _table(f"task {task.name}", ("", ""), rows)


def _method(task: Task) -> str:
    return str(task.meta.get("method", "-"))


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><caption>{escape(title)}</caption><tr>{top}</tr>{''.join(lines)}</table>"
