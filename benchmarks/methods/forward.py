"""A task's model as a differentiable function of flat body weights, on batches made once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.methods.layout import Layout


@dataclass(frozen=True)
class Batch:
    """Inputs of one forward pass and what its logits are to say.

    Attributes:
        inputs: Arguments of the model.
        labels: int64 [rows], the right class of every row of logits.
        at: bool [n, length - 1], the positions whose next token is predicted; None for classifiers,
            which give one row of logits a text.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    at: Tensor | None = None


class Forward:
    """The model of one task; its own body weights are never used.

    Attributes:
        module: The model; its body weights are whatever they were.
        names: Base's tensor names to the module's.
        head: The task's own tensors, by their names in the model, as they are stored.
        dense_head: The same as the fine-tune has them, before they are stored.
    """

    def __init__(
        self,
        module: nn.Module,
        layout: Layout,
        names: Mapping[str, str],
        *,
        head: Mapping[str, Tensor],
        dense_head: Mapping[str, Tensor],
    ) -> None:
        """Wrap a module.

        Args:
            module: The task's model, on its device.
            layout: Of the flat weights.
            names: Base's tensor names to the module's.
            head: What the base lacks, as it is stored.
            dense_head: The same as the fine-tune has it.
        """
        self.module = module.eval().requires_grad_(requires_grad=False)
        self.head, self.dense_head = dict(head), dict(dense_head)
        self._layout = layout
        self.names = dict(names)
        own = dict(module.named_parameters())
        self._dtypes = {name: own[task_name].dtype for name, task_name in names.items()}

    def layer(self, name: str) -> nn.Module:
        """The module whose weight the base calls `name`."""
        return self.module.get_submodule(self.names[name].rpartition(".")[0])

    def logits(
        self, weights: Tensor, batch: Batch, *, head: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """float32 [rows, classes] under flat float32 weights; differentiable in them."""
        tensors = {
            self.names[span.name]: tensor.to(self._dtypes[span.name])
            for span, tensor in self._layout.views(weights)
        }
        given = {**tensors, **(self.head if head is None else head)}
        logits: Tensor = functional_call(self.module, given, (), batch.inputs).logits
        if batch.at is not None:
            logits = logits[:, :-1][batch.at]
        return logits.float()


class Reference:
    """Batches with the dense fine-tune's answers to them.

    Attributes:
        n_rows: Rows of logits in all.
    """

    def __init__(self, forward: Forward, dense: Tensor, batches: Sequence[Batch]) -> None:
        """Run the dense fine-tune once; holds its log-probabilities, float32."""
        self._forward = forward
        self.batches = tuple(batches)
        with torch.no_grad():
            self._dense = [
                forward.logits(dense, batch, head=forward.dense_head).log_softmax(-1)
                for batch in self.batches
            ]
        self.n_rows = sum(len(batch.labels) for batch in self.batches)

    def divergence(self, weights: Tensor, number: int) -> Tensor:
        """Sum over the rows of one batch of KL(dense || candidate); differentiable."""
        expected = self._dense[number]
        actual = self._forward.logits(weights, self.batches[number]).log_softmax(-1)
        return (expected.exp() * (expected - actual)).sum()

    @torch.no_grad()
    def loss(self, weights: Tensor) -> float:
        """Mean divergence of all rows."""
        total = sum(self.divergence(weights, i).double() for i in range(len(self.batches)))
        return float(total) / self.n_rows

    @torch.no_grad()
    def label_loss(self, weights: Tensor) -> float:
        """Mean cross entropy of the right classes."""
        total = 0.0
        for batch in self.batches:
            logits = self._forward.logits(weights, batch)
            total += float(torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum"))
        return total / self.n_rows
