"""`/classify` in vLLM's shape."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from server.protocol.pooling import PoolingRequest, Usage


class ClassificationRequest(PoolingRequest):
    """Texts to classify by one task."""


class ClassificationData(BaseModel):
    """The answer to one input.

    Attributes:
        label: Name of the most probable class.
        probs: A probability per class, in the order of the task's labels.
    """

    index: int
    label: str
    probs: list[float]
    num_classes: int


class ClassificationResponse(BaseModel):
    """Answers in the order of the inputs."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[ClassificationData]
    usage: Usage
