"""Losses of a causal language model, text by text, without holding its logits.

The logits of a few hundred texts are gigabytes. Of the dense fine-tune's only the most likely
tokens of each position are held, with the probability of all the others together; the divergence is
that of these outcomes. It is exact for vocabularies up to `TOP` tokens and else a lower bound of
the full divergence, short of it by what happens among tokens that hardly ever come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from nps_store.calibration.losses import Measure

TOP = 256
"""Tokens held a position: 2 KiB of memory, whatever the vocabulary."""
_TINY = 1e-7


@dataclass(frozen=True)
class TopTokens:
    """The dense fine-tune's next-token distribution at every position but the last.

    Attributes:
        index: int32 [n, length - 1, k] most likely tokens.
        log_p: float32 [n, length - 1, k] logarithms of their probabilities.
        is_all: Whether these are all tokens there are.
    """

    index: Tensor
    log_p: Tensor
    is_all: bool

    @classmethod
    def of(cls, logits: Tensor) -> TopTokens:
        """From logits [n, length, vocabulary]."""
        logits = logits[:, :-1]
        total = logits.float().logsumexp(-1, keepdim=True)
        top = logits.topk(min(TOP, logits.shape[-1]), dim=-1)
        return cls(top.indices.int(), top.values.float() - total, logits.shape[-1] <= TOP)


def token_losses(
    logits: Tensor, ids: Tensor, mask: Tensor, dense: TopTokens | None
) -> dict[Measure, Tensor]:
    """Means over the tokens of each text but the first, float64 [n].

    Args:
        logits: [n, length, vocabulary].
        ids: int64 [n, length], padded behind.
        mask: int64 [n, length], 1 on tokens of the text.
        dense: The dense fine-tune's distribution on the same batch, or None.
    """
    logits, known = logits[:, :-1], mask[:, 1:].double()
    total = logits.float().logsumexp(-1)
    hit = logits.gather(-1, ids[:, 1:, None])[..., 0].float()
    losses: dict[Measure, Tensor] = {"loss": _mean(total - hit, known)}
    if dense is not None:
        log_q = logits.gather(-1, dense.index.long()).float() - total[..., None]
        losses["distill"] = _mean(_divergence(dense, log_q), known)
    return losses


def _divergence(dense: TopTokens, log_q: Tensor) -> Tensor:
    """KL over the held tokens and "any other", [n, length - 1]."""
    p = dense.log_p.exp()
    among = (p * (dense.log_p - log_q)).sum(-1)
    if dense.is_all:
        return among
    other_p, other_q = (1 - p.sum(-1)).clamp(min=_TINY), (1 - log_q.exp().sum(-1)).clamp(min=_TINY)
    return among + other_p * (other_p / other_q).log()


def _mean(values: Tensor, known: Tensor) -> Tensor:
    return (values.double() * known).sum(-1) / known.sum(-1)
