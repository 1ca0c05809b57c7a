"""Runs a task's model on a fixed set of examples, again and again under changing weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nps_store.calibration.quality import Outputs
from nps_store.errors import CalibrationError
from nps_store.modeling.shell import Shell, encode, pad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from nps_store.calibration.data import Row

BATCH_TOKENS = 4096


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
            CalibrationError: A label is none of the head's.
        """
        ids, n_truncated = encode(shell, tokenizer, [row.text for row in rows])
        labels = None
        if shell.kind == "classify" and all(row.label is not None for row in rows):
            known = {label: index for index, label in enumerate(shell.labels)}
            unknown = sorted({str(row.label) for row in rows if row.label not in known})
            if unknown:
                raise CalibrationError(
                    f"{where}: label {unknown[0]!r} is none of the head's: expected one of "
                    f"{', '.join(map(repr, shell.labels))}"
                )
            labels = torch.tensor([known[str(row.label)] for row in rows], dtype=torch.int64)
        return cls(ids, labels, n_truncated)

    def __len__(self) -> int:
        return len(self.ids)


class Runner:
    """Batches of similar length, made once."""

    def __init__(
        self, shell: Shell, tokenizer: PreTrainedTokenizerBase, examples: Examples
    ) -> None:
        self._shell = shell
        self._examples = examples
        self._batches = [
            (index, pad([examples.ids[i] for i in index], tokenizer, shell.body.device))
            for index in _by_length(examples.ids)
        ]

    def __call__(self) -> Outputs:
        """Outputs under the weights that are in place now, in the order of the examples."""
        run = self._shell.logits if self._shell.kind == "classify" else self._shell.run
        parts = [run(batch).float().cpu() for _, batch in self._batches]
        order = torch.tensor([i for index, _ in self._batches for i in index])
        values = torch.cat(parts)[torch.argsort(order)]
        return Outputs(values, self._examples.labels, self._shell.kind == "classify")


def _by_length(ids: Sequence[Sequence[int]]) -> list[list[int]]:
    batches: list[list[int]] = []
    for index in sorted(range(len(ids)), key=lambda i: len(ids[i])):
        if not batches or (len(batches[-1]) + 1) * len(ids[index]) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(index)
    return batches
