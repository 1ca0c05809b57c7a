"""What the dense fine-tune teaches: its outputs on batches of examples, and how far off they are.

Beside the outputs, the last hidden states are matched, token by token: a few hundred texts then
speak of thousands of tokens, and the learned selection holds on texts that it has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from nps_store.calibration.augment import augment
from nps_store.calibration.batches import by_length
from nps_store.calibration.losses import batch_losses, refer
from nps_store.modeling.shell import pad

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from nps_store.calibration.losses import Reference
    from nps_store.modeling import Shell

BATCH_TEXTS = 64
BATCH_TOKENS = 8192
"""Texts and tokens of a lesson, at most: one step of learning."""
N_TEXTS = 4096
"""Texts to learn a selection from: the given ones and variations of them."""


@dataclass(frozen=True)
class Lesson:
    """One batch with the dense fine-tune's answers.

    Attributes:
        inputs: Token ids and attention mask, int64 [n, length].
        outputs: Logits, vectors, or a language model's likeliest tokens.
        hidden: Last hidden states of the tokens, float16 [n_tokens, dim]; None where they are not
            to be matched.
    """

    inputs: dict[str, Tensor]
    outputs: Reference
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
        match_hidden: bool = True,
    ) -> None:
        """Ask the dense fine-tune.

        Args:
            shell: Its model.
            tokenizer: Its tokenizer.
            ids: Token ids of each text.
            seed: Of the order.
            match_hidden: Match the last hidden states, too; a language model's never are, since
                its outputs speak of every token.
        """
        self._shell = shell
        self._rng = np.random.default_rng(seed)
        self._lessons = []
        batches = by_length(ids, most_tokens=BATCH_TOKENS, most_texts=BATCH_TEXTS, rng=self._rng)
        for index in batches:
            inputs = pad([ids[i] for i in index], tokenizer, shell.body.device)
            with torch.no_grad():
                outputs, states = shell.trace(inputs)
            hidden = None
            if match_hidden and shell.kind != "generate":
                hidden = states[inputs["attention_mask"].bool()].half()
            self._lessons.append(Lesson(inputs, refer(shell.kind, outputs), hidden))

    @classmethod
    def varied(
        cls,
        shell: Shell,
        tokenizer: PreTrainedTokenizerBase,
        ids: Sequence[Sequence[int]],
        *,
        seed: int,
        n_texts: int = N_TEXTS,
        match_hidden: bool = True,
    ) -> Lessons:
        """On variations of the texts, too, so that there are `n_texts` of them; a language model
        learns from every token of its own texts."""
        texts = list(ids)
        if shell.kind != "generate":
            count, special = max(n_texts - len(texts), 0), tokenizer.all_special_ids
            longest = max(map(len, texts))
            texts += augment(texts, count=count, special=special, longest=longest, seed=seed)
        return cls(shell, tokenizer, texts, seed=seed, match_hidden=match_hidden)

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
        losses = batch_losses(self._shell.kind, outputs, inputs, dense=lesson.outputs)
        loss = losses["distill"].mean()
        if lesson.hidden is None:
            return loss
        expected = lesson.hidden.float()
        error = hidden[inputs["attention_mask"].bool()].float() - expected
        return loss + error.square().sum() / expected.square().sum()
