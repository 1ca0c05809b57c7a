"""What the dense fine-tune teaches: its outputs on batches of examples, and how far off they are.

Beside the outputs, the last hidden states are matched, token by token: a few hundred texts then
speak of thousands of tokens, and the learned selection holds on texts that it has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nps_store.calibration.losses import class_losses, vector_losses
from nps_store.calibration.tokens import TopTokens, token_losses
from nps_store.modeling.shell import pad

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedTokenizerBase

    from nps_store.modeling import Shell

BATCH = 64
BATCH_TOKENS = 8192
"""Texts and tokens of a lesson, at most: one step of learning."""


@dataclass(frozen=True)
class Lesson:
    """One batch with the dense fine-tune's answers.

    Attributes:
        inputs: Token ids and attention mask, int64 [n, length].
        outputs: Logits, vectors, or a language model's likeliest tokens.
        hidden: Last hidden states of the tokens, float16 [n_tokens, dim]; None for a language
            model, whose outputs speak of every token.
    """

    inputs: dict[str, Tensor]
    outputs: Tensor | TopTokens
    hidden: Tensor | None


class Lessons:
    """Batches of similar length, given in a random order again and again.

    Made while the dense fine-tune's weights are in place.
    """

    def __init__(
        self,
        shell: Shell,
        tokenizer: PreTrainedTokenizerBase,
        ids: Sequence[Sequence[int]],
        *,
        seed: int,
    ) -> None:
        self._shell = shell
        self._rng = np.random.default_rng(seed)
        self._lessons = []
        for index in _batches(ids, self._rng):
            inputs = pad([ids[i] for i in index], tokenizer, shell.body.device)
            with torch.no_grad():
                outputs, hidden = shell.trace(inputs)
            if shell.kind == "generate":
                self._lessons.append(Lesson(inputs, TopTokens.of(outputs), None))
            else:
                tokens = hidden[inputs["attention_mask"].bool()].half()
                self._lessons.append(Lesson(inputs, outputs.float(), tokens))

    def __iter__(self) -> Iterator[Lesson]:
        """Endless."""
        while True:
            for number in self._rng.permutation(len(self._lessons)):
                yield self._lessons[number]

    def loss(self, lesson: Lesson) -> Tensor:
        """How far the weights in place are from the dense fine-tune's answers; differentiable.

        The mean divergence of the outputs, and the error of the hidden states relative to them.
        """
        inputs = lesson.inputs
        outputs, hidden = self._shell.trace(inputs)
        if isinstance(lesson.outputs, TopTokens):
            ids, mask = inputs["input_ids"], inputs["attention_mask"]
            return token_losses(outputs, ids, mask, lesson.outputs)["distill"].mean()
        if self._shell.kind == "classify":
            loss = class_losses(outputs, None, lesson.outputs)["distill"].mean()
        else:
            loss = vector_losses(outputs, lesson.outputs)["distill"].mean()
        if lesson.hidden is None:
            return loss
        expected = lesson.hidden.float()
        error = hidden[inputs["attention_mask"].bool()].float() - expected
        return loss + error.square().sum() / expected.square().sum()


def _batches(ids: Sequence[Sequence[int]], rng: np.random.Generator) -> list[list[int]]:
    """Indices of texts, batched by length; equal lengths in a random order."""
    lengths = np.array([len(text) for text in ids])
    order = np.lexsort((rng.random(len(ids)), lengths))
    batches: list[list[int]] = [[]]
    for index in order.tolist():
        full = (len(batches[-1]) + 1) * len(ids[index]) > BATCH_TOKENS
        if batches[-1] and (full or len(batches[-1]) == BATCH):
            batches.append([])
        batches[-1].append(index)
    return batches
