"""Where the base's tensors come from: a model directory, or one with vocabulary rows appended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class BaseSource(Protocol):
    """Tensors and files of a base model. `Checkpoint` is one; a store with its base embedded has
    another."""

    @property
    def names(self) -> tuple[str, ...]:
        """All tensor names."""

    @property
    def config(self) -> dict[str, Any]:
        """The parsed `config.json`."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""

    def dtype(self, name: str) -> str:
        """Dtype of one tensor, as safetensors names it."""

    def tensor(self, name: str) -> Tensor:
        """One tensor, on the CPU."""

    def files(self) -> dict[str, Path]:
        """The small files of the model."""


class GrownBase:
    """A base with rows appended to some tensors, so that a grown task can be run in place on it.

    The appended rows are the task's own; the body is built from the task's configuration.
    """

    def __init__(
        self, base: BaseSource, rows: Mapping[str, Tensor], config: dict[str, Any]
    ) -> None:
        self._base = base
        self._rows = rows
        self.config = config
        self.names = base.names

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape with the appended rows."""
        shape = self._base.shape(name)
        extra = self._rows.get(name)
        return shape if extra is None else (shape[0] + len(extra), *shape[1:])

    def dtype(self, name: str) -> str:
        """Dtype of one tensor."""
        return self._base.dtype(name)

    def tensor(self, name: str) -> Tensor:
        """The base's tensor with the rows behind it."""
        tensor = self._base.tensor(name)
        extra = self._rows.get(name)
        return tensor if extra is None else torch.cat([tensor, extra.to(tensor.dtype)])

    def files(self) -> dict[str, Path]:
        """The base's files."""
        return self._base.files()


def has_head(config: Mapping[str, Any]) -> bool:
    """Whether a model of this configuration is more than a bare body (`BertModel`)."""
    names = config.get("architectures") or []
    return bool(names) and not str(names[0]).endswith("Model")
