"""What is known of a stored task without reading its weights."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from formats.base import BaseTensor
    from formats.container import Container
    from formats.directory import TaskDirectory
    from nps_store.store import Files

FLOATING = ("F32", "BF16", "F16", "F64")


class Task:
    """A stored task.

    Attributes:
        name: Its name, which is its model id when served.
        directory: Its tensors and how they are stored.
        files: Its configuration, tokenizer and the like.
        content_hash: Changes whenever anything of the task does.
        nbytes: Bytes it takes in the store: weights, directory, and the attached files that the
            base does not share.
    """

    def __init__(
        self,
        directory: TaskDirectory,
        base: Sequence[BaseTensor],
        files: Files,
        *,
        content_hash: str,
        nbytes: int,
    ) -> None:
        self.name = directory.name
        self.directory = directory
        self.files = files
        self.content_hash = content_hash
        self.nbytes = nbytes
        self._base = base

    @property
    def dtype(self) -> str:
        """Dtype of its weights as safetensors names it."""
        floating = (tensor.dtype for tensor in self._base if tensor.dtype in FLOATING)
        return self.directory.dtype or next(floating, "F32")

    @property
    def meta(self) -> dict[str, Any]:
        """Method, settings, measured quality, source."""
        return dict(self.directory.meta)

    @property
    def dense_nbytes(self) -> int:
        """Bytes of the fine-tune's own safetensors file, as it was compressed."""
        return int(self.meta.get("source", {}).get("nbytes", 0))

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its `config.json`."""
        content = self.files.read("config.json")
        return {} if content is None else dict(json.loads(content))

    @property
    def created(self) -> str:
        """When it was compressed (ISO 8601, UTC)."""
        return str(self.meta.get("created", ""))

    def __repr__(self) -> str:
        return f"<Task {self.name!r} {self.nbytes} bytes {self.meta.get('method', {})}>"

    def _repr_html_(self) -> str:
        """What is known of it, for notebooks."""
        from nps_store.notebook import task_html

        return task_html(self)


def tied(directory: TaskDirectory) -> dict[str, str]:
    """Names under which the task's checkpoint held a tensor a second time, to the name under which
    it is stored."""
    noted = directory.meta.get("tied")
    if not isinstance(noted, dict):
        return {}
    return {name: str(first) for name, first in noted.items()}


def with_tied(meta: Mapping[str, Any], second: Mapping[str, str]) -> dict[str, Any]:
    """What is noted of a task, with the names that `tied` gives back."""
    return {**meta, "tied": dict(second)} if second else dict(meta)


def task_nbytes(container: Container, name: str) -> int:
    """Bytes of a task, its directory and the attached files that the base does not share."""
    directory = container.directory(name)
    stored = container.root.files
    attached = {ref.hash for ref in directory.files.values()} & set(stored)
    return container.root.tasks[name].nbytes + sum(stored[key].section.nbytes for key in attached)
