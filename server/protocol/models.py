"""`/v1/models` in OpenAI's shape, with what the store knows of a task under `nps`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class StoreInfo(BaseModel):
    """What is particular to a model out of a store.

    Attributes:
        kind: What it computes, once it has been loaded.
        nbytes: Bytes of the task in the store's file; None for the base.
        details: Method, measured quality and so on, as recorded at compression.
    """

    state: str
    kind: str | None = None
    content_hash: str | None = None
    nbytes: int | None = None
    details: dict[str, Any] = Field(default_factory=dict)


class ModelCard(BaseModel):
    """The base, or a task with the base as its parent."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["nps"] = "nps"
    root: str
    parent: str | None = None
    nps: StoreInfo


class ModelList(BaseModel):
    """The base first, then every task by name."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
