"""Quality on test data, which no method ever sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from benchmarks.methods.forward import Batch, Forward


class HeldOut:
    """The test data of one task, with what base and dense fine-tune make of it.

    Attributes:
        dense: Loss and accuracy of the fine-tune.
        base: The same of the base's body with the fine-tune's head.
    """

    def __init__(
        self, forward: Forward, base: Tensor, dense: Tensor, batches: Sequence[Batch]
    ) -> None:
        """Evaluate base and dense fine-tune once."""
        self._forward = forward
        self._weights = base
        self._batches = tuple(batches)
        self.dense = self._measure(dense, forward.dense_head)
        self.base = self._measure(base, forward.dense_head)

    def scores(self, delta: Tensor, head: Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """Accuracy and loss under a decoded task vector, and what they keep of the fine-tune's.

        `gain_kept` is (L_base - L) / (L_base - L_dense), `accuracy_ratio` accuracy over dense.
        """
        loss, accuracy = self._measure(self._weights + delta.to(self._weights.device), head)
        return {
            "loss": loss,
            "accuracy": accuracy,
            "gain_kept": (self.base[0] - loss) / (self.base[0] - self.dense[0]),
            "accuracy_ratio": accuracy / self.dense[1],
        }

    @torch.no_grad()
    def _measure(self, weights: Tensor, head: Mapping[str, Tensor] | None) -> tuple[float, float]:
        loss = correct = 0.0
        count = 0
        for batch in self._batches:
            logits = self._forward.logits(weights, batch, head=head)
            each = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none")
            loss += float(each.double().sum())
            correct += float((logits.argmax(-1) == batch.labels).sum())
            count += len(batch.labels)
        return loss / count, correct / count
