"""Runs a task's model on a fixed set of examples, again and again under changing weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nps_store.calibration.batches import by_length
from nps_store.calibration.data import class_indices
from nps_store.calibration.losses import Losses, batch_losses, refer
from nps_store.errors import CalibrationError
from nps_store.modeling.shell import Shell, encode, pad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from nps_store.calibration.data import Row
    from nps_store.calibration.losses import Measure, Reference

BATCH_TOKENS = 4096
LOGITS_NBYTES = 256 << 20
"""Of a language model's batch, in float32: this bounds its memory whatever the vocabulary."""
MOST_TOKENS = 2048
"""A language model's texts are cut to this, or to its own limit where that is less."""


@dataclass(frozen=True)
class Examples:
    """Tokenised examples.

    Attributes:
        ids: Token ids of each text.
        labels: int64 [n], or None where not every row has a label.
        n_truncated: Texts longer than the model's limit.
    """

    ids: list[list[int]]
    labels: Tensor | None
    n_truncated: int

    @classmethod
    def of(
        cls, rows: Sequence[Row], shell: Shell, tokenizer: PreTrainedTokenizerBase, *, where: str
    ) -> Examples:
        """Tokenise rows and look their labels up.

        Raises:
            CalibrationError: A label is none of the head's, or a language model's text is empty.
        """
        most = MOST_TOKENS if shell.kind == "generate" else None
        ids, n_truncated = encode(shell, tokenizer, [row.text for row in rows], most=most)
        if shell.kind == "generate":
            for row, tokens in zip(rows, ids, strict=True):
                if len(tokens) < 2:
                    raise CalibrationError(
                        f"{where}: line {row.line}: text {row.text!r} has no token to predict; "
                        "expected at least two tokens"
                    )
        classes = None
        if shell.kind == "classify":
            classes = class_indices(rows, shell.labels, where=where)
        labels = None if classes is None else torch.tensor(classes, dtype=torch.int64)
        return cls(ids, labels, n_truncated)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Batch:
    """Examples of similar length.

    Attributes:
        index: Which examples.
        inputs: Token ids and attention mask, int64 [n, length] on the model's device.
        labels: int64 [n] on the same device, or None.
    """

    index: list[int]
    inputs: dict[str, Tensor]
    labels: Tensor | None


class Runner:
    """A model on its examples, batched once."""

    def __init__(
        self, shell: Shell, tokenizer: PreTrainedTokenizerBase, examples: Examples
    ) -> None:
        self._shell = shell
        device = shell.body.device
        self._batches = [
            Batch(
                index,
                pad([examples.ids[i] for i in index], tokenizer, device),
                None if examples.labels is None else examples.labels[index].to(device),
            )
            for index in by_length(examples.ids, most_tokens=_batch_tokens(shell))
        ]
        self._dense: list[Reference | None] = [None] * len(self._batches)

    def refer_(self) -> None:
        """Remember the outputs under the weights that are in place now, the dense fine-tune's:
        from then on divergence from them is measured too."""
        self._dense = [refer(self._shell.kind, self._outputs(batch)) for batch in self._batches]

    def __call__(self) -> Losses:
        """Losses under the weights that are in place now, in the order of the examples."""
        parts = [self._losses(b, d) for b, d in zip(self._batches, self._dense, strict=True)]
        return Losses(
            **{
                measure: self._in_order([part[measure] for part in parts]).double().numpy()
                for measure in parts[0]
            }
        )

    def outputs(self) -> Tensor:
        """Logits [n, n_labels] or vectors [n, dim], float32 on the CPU, in the examples' order."""
        return self._in_order([self._outputs(batch).float() for batch in self._batches])

    @torch.inference_mode()
    def _outputs(self, batch: Batch) -> Tensor:
        outputs, _ = self._shell.trace(batch.inputs)
        return outputs

    @torch.inference_mode()
    def _losses(self, batch: Batch, dense: Reference | None) -> dict[Measure, Tensor]:
        outputs = self._outputs(batch)
        kind = self._shell.kind
        return batch_losses(kind, outputs, batch.inputs, labels=batch.labels, dense=dense)

    def _in_order(self, parts: list[Tensor]) -> Tensor:
        order = torch.tensor([i for batch in self._batches for i in batch.index])
        return torch.cat([part.cpu() for part in parts])[torch.argsort(order)]


def _batch_tokens(shell: Shell) -> int:
    if shell.kind != "generate":
        return BATCH_TOKENS
    return max(LOGITS_NBYTES // (4 * int(shell.config.vocab_size)), 1)
