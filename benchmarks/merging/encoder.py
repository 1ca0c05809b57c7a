"""One body with the heads of all tasks: merged weights go in once, then every task is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.methods.forward import Batch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.methods.layout import Layout


@dataclass(frozen=True)
class Answered:
    """Batches of one task, and what its dense fine-tune says to them.

    Attributes:
        batches: Inputs and labels, on the encoder's device.
        expected: Log-probabilities of the fine-tune, float32 [rows, classes] a batch.
    """

    batches: tuple[Batch, ...]
    expected: tuple[Tensor, ...]

    @property
    def n_rows(self) -> int:
        """Texts in all."""
        return sum(len(batch.labels) for batch in self.batches)

    def half(self, which: Literal[0, 1]) -> Answered:
        """Every other text: half 0 and half 1 share none."""
        batches, expected = [], []
        for batch, answers in zip(self.batches, self.expected, strict=True):
            rows = slice(which, None, 2)
            if len(batch.labels[rows]):
                inputs = {name: tensor[rows] for name, tensor in batch.inputs.items()}
                batches.append(Batch(inputs, batch.labels[rows]))
                expected.append(answers[rows])
        return Answered(tuple(batches), tuple(expected))


@dataclass(frozen=True)
class Score:
    """How well a merged body does one task.

    Attributes:
        accuracy: Share of texts whose most likely label is the right one.
        divergence: Mean KL to the dense fine-tune, in nats.
    """

    accuracy: float
    divergence: float


class Encoder:
    """A classifier whose body's parameters are views of one flat vector.

    Attributes:
        weights: float32 [numel], the body's; write with `put_`.
        module: The classifier.
    """

    def __init__(
        self,
        module: nn.Module,
        layout: Layout,
        names: Mapping[str, str],
        heads: Mapping[str, Mapping[str, Tensor]],
    ) -> None:
        """Take a module over.

        Args:
            module: The classifier of any of the tasks, on its device.
            layout: Of the flat weights.
            names: Base's tensor names to the module's.
            heads: Of every task, what the base lacks, by its names in the module.

        Raises:
            ValueError: A tensor of the body is not float32.
        """
        self.module = module.eval().requires_grad_(requires_grad=False)
        self._layout, self._names = layout, dict(names)
        self._heads = {task: dict(head) for task, head in heads.items()}
        own = dict(module.named_parameters())
        device = own[names[layout.spans[0].name]].device
        self.weights = torch.empty(layout.numel, device=device)
        for span, view in layout.views(self.weights):
            parameter = own[names[span.name]]
            if parameter.dtype != torch.float32:
                raise ValueError(
                    f"tensor {span.name!r} is of {parameter.dtype}: expected torch.float32"
                )
            view.copy_(parameter)
            parameter.data = view

    def put_(self, weights: Tensor) -> None:
        """Make float32 [numel] the body of all tasks."""
        self.weights.copy_(weights)

    def logits(self, task: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """float32 [texts, classes] under the body's weights as they are."""
        return self._call(inputs, self._heads[task])

    def logits_at(self, weights: Tensor, task: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """The same under other weights; differentiable in them."""
        body = {self._names[span.name]: view for span, view in self._layout.views(weights)}
        return self._call(inputs, body | self._heads[task])

    def layer(self, name: str) -> nn.Module:
        """The module whose weight the base calls `name`."""
        return self.module.get_submodule(self._names[name].rpartition(".")[0])

    @torch.no_grad()
    def answered(self, task: str, dense: Tensor, batches: Sequence[Batch]) -> Answered:
        """What a dense fine-tune says to its batches; leaves its weights in place."""
        self.put_(dense)
        said = [self.logits(task, batch.inputs).log_softmax(-1) for batch in batches]
        return Answered(tuple(batches), tuple(said))

    @torch.no_grad()
    def scores(self, weights: Tensor, data: Mapping[str, Answered]) -> dict[str, Score]:
        """Put weights in, ask every task; the device is waited for once."""
        self.put_(weights)
        sums = torch.stack([self._sums(task, answered) for task, answered in data.items()])
        counts = torch.tensor([answered.n_rows for answered in data.values()])
        means = sums.cpu() / counts[:, None]
        return {task: Score(*row) for task, row in zip(data, means.tolist(), strict=True)}

    def _sums(self, task: str, answered: Answered) -> Tensor:
        """float64 [2]: right answers, and the divergences' sum."""
        total = torch.zeros(2, dtype=torch.float64, device=self.weights.device)
        for batch, expected in zip(answered.batches, answered.expected, strict=True):
            actual = self.logits(task, batch.inputs).log_softmax(-1)
            total[0] += (actual.argmax(-1) == batch.labels).sum()
            total[1] += (expected.exp() * (expected - actual)).sum()
        return total

    def _call(self, inputs: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = functional_call(self.module, dict(tensors), (), dict(inputs)).logits
        return logits.float()
