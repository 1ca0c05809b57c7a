"""Losses of one model on a set of examples: what classifiers and vectors say in each measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Float64 = NDArray[np.float64]
Measure = Literal["distill", "loss", "accuracy"]


@dataclass(frozen=True)
class Losses:
    """Loss of each example under some weights, float64 [n] in every measure; lower is better.

    Attributes:
        distill: Divergence from the dense fine-tune's outputs, or None where it was not run.
        loss: Cross entropy, or None without labels.
        accuracy: 0/1 error, or None without labels.
    """

    distill: Float64 | None = None
    loss: Float64 | None = None
    accuracy: Float64 | None = None

    def of(self, measure: Measure) -> Float64:
        """The losses in one measure.

        Raises:
            ValueError: They could not be measured.
        """
        losses = {"distill": self.distill, "loss": self.loss, "accuracy": self.accuracy}[measure]
        if losses is None:
            needed = "the dense fine-tune's outputs" if measure == "distill" else "labels"
            raise ValueError(f"measure {measure!r} needs {needed}")
        return losses


def class_losses(
    logits: Tensor, labels: Tensor | None, dense: Tensor | None
) -> dict[Measure, Tensor]:
    """Of a classifier.

    Args:
        logits: float [n, n_labels].
        labels: int64 [n], or None.
        dense: Logits of the dense fine-tune, or None.
    """
    losses: dict[Measure, Tensor] = {}
    if dense is not None:
        expected, actual = dense.double().log_softmax(-1), logits.double().log_softmax(-1)
        losses["distill"] = (expected.exp() * (expected - actual)).sum(-1)
    if labels is not None:
        losses["loss"] = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        losses["accuracy"] = (logits.argmax(-1) != labels).float()
    return losses


def vector_losses(vectors: Tensor, dense: Tensor | None) -> dict[Measure, Tensor]:
    """Of an embedding: cosine distance from the dense fine-tune's vectors, both [n, dim]."""
    if dense is None:
        return {}
    return {"distill": 1 - torch.nn.functional.cosine_similarity(dense, vectors)}
