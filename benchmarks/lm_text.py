"""From a corpus to what a language model reads: a tokenizer, token streams, held-out passages."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from benchmarks.corpus import copied_share
from nps_store.calibration import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence, Set

    from torch import Tensor

    from benchmarks.corpus import Document, Split

START = "<|start|>"
START_ID = 0
MOST_COPIED = 0.2
"""A held-out passage with a larger share of its lines in the training text would be recited."""


def train_tokenizer(
    texts: Sequence[str], *, vocab_size: int, context: int
) -> PreTrainedTokenizerFast:
    """A byte-level BPE that puts the start token in front of every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, START_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=START,
        pad_token=START,
        model_max_length=context,
    )


def stream(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    """All texts as one row of token ids, int32 [n], a start token before each."""
    encoded = tokenizer.backend_tokenizer.encode_batch_fast(list(texts))
    return torch.from_numpy(np.concatenate([np.array(e.ids, dtype=np.int32) for e in encoded]))


def texts_of(documents: Sequence[Document], domains: Sequence[str], split: Split) -> list[str]:
    """Texts of some domains and one split."""
    return [d.text for d in documents if d.domain in domains and d.split == split]


def passages(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    *,
    seen: Set[bytes],
    context: int,
    n: int,
    seed: int,
) -> list[Row]:
    """Up to `n` passages of about the context's length, of which little is in the training text.

    Their group is the number of the text that they were cut from.

    Args:
        tokenizer: Measures the length.
        texts: Held-out files.
        seen: Digests of the lines of everything trained on, and of other held-out passages.
        context: Tokens a model reads at once; passages stay a little below it, since a text cut
            out of another may take a token more.
        n: Passages wanted.
        seed: Of their choice.
    """
    found: dict[str, Row] = {}
    for row in _cut(tokenizer, texts, context - context // 32 - 2):
        found.setdefault(row.text, row)
    rows = list(found.values())
    order = np.random.default_rng(seed).permutation(len(rows))
    fresh = (rows[i] for i in order if copied_share(rows[i].text, seen) <= MOST_COPIED)
    return list(itertools.islice(fresh, n))


def _cut(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], length: int) -> Iterator[Row]:
    """Every text in pieces of `length` tokens, without what is left at its end."""
    encoder = tokenizer.backend_tokenizer
    encoded = encoder.encode_batch(list(texts), add_special_tokens=False)
    for number, (text, encoding) in enumerate(zip(texts, encoded, strict=True)):
        offsets = encoding.offsets
        for start in range(0, len(offsets) - length + 1, length):
            piece = text[offsets[start][0] : offsets[start + length - 1][1]]
            yield Row(piece, group=str(number))
