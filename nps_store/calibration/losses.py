"""How far a model's outputs are from labels and from the dense fine-tune's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nps_store.calibration.tokens import TopTokens, token_losses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nps_store.modeling.shell import Kind

Float64 = NDArray[np.float64]
Measure = Literal["distill", "loss", "accuracy"]
Reference: TypeAlias = Tensor | TopTokens
"""The dense fine-tune's outputs on a batch: logits [n, n_labels], vectors [n, dim], or a language
model's likeliest tokens."""


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


def refer(kind: Kind, outputs: Tensor) -> Reference:
    """Outputs as they are held to be compared with."""
    return TopTokens.of(outputs) if kind == "generate" else outputs


def batch_losses(
    kind: Kind,
    outputs: Tensor,
    inputs: Mapping[str, Tensor],
    *,
    labels: Tensor | None = None,
    dense: Reference | None = None,
) -> dict[Measure, Tensor]:
    """Losses of each example of a batch, [n] in every measure; differentiable.

    Args:
        kind: Of model.
        outputs: Its logits or vectors.
        inputs: Token ids and attention mask, int64 [n, length].
        labels: int64 [n] classes, or None.
        dense: The dense fine-tune's outputs, or None.
    """
    if kind == "generate":
        tokens = cast("TopTokens | None", dense)
        return token_losses(outputs, inputs["input_ids"], inputs["attention_mask"], tokens)
    other = cast("Tensor | None", dense)
    if kind == "classify":
        return class_losses(outputs, labels, other)
    return vector_losses(outputs, other)


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
        losses["loss"] = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
        losses["accuracy"] = (logits.argmax(-1) != labels).float()
    return losses


def vector_losses(vectors: Tensor, dense: Tensor | None) -> dict[Measure, Tensor]:
    """Of an embedding: cosine distance from the dense fine-tune's vectors, both [n, dim]."""
    if dense is None:
        return {}
    return {"distill": 1 - torch.nn.functional.cosine_similarity(dense, vectors)}
