"""Losses of language models equal their formulas, whatever is batched or left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nps_store.calibration import tokens as module
from nps_store.calibration.tokens import TopTokens, token_losses

LENGTHS = (9, 4, 2, 7)


def batch(vocabulary: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random logits, ids and mask of texts of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(LENGTHS), max(LENGTHS))
    logits = 3 * torch.randn(*shape, vocabulary, generator=generator)
    ids = torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(99))
    mask = (torch.arange(shape[1]) < torch.tensor(LENGTHS)[:, None]).long()
    return logits, ids, mask


def formulas(logits, ids, dense):
    """Cross entropy and KL of every text, one position at a time."""
    losses, divergences = [], []
    for row, length in enumerate(LENGTHS):
        q, p = (x[row].double().log_softmax(-1).numpy() for x in (logits, dense))
        at = range(length - 1)
        losses.append(np.mean([-q[t, ids[row, t + 1]] for t in at]))
        divergences.append(np.mean([(np.exp(p[t]) * (p[t] - q[t])).sum() for t in at]))
    return np.array(losses), np.array(divergences)


@pytest.mark.parametrize("vocabulary", [5, 40])
def test_losses_equal_their_formulas(vocabulary):
    (logits, ids, mask), (dense, _, _) = batch(vocabulary), batch(vocabulary, seed=1)
    made = token_losses(logits, ids, mask, TopTokens.of(dense))
    loss, divergence = formulas(logits, ids, dense)
    assert made["loss"].numpy() == pytest.approx(loss, rel=1e-5)
    assert made["distill"].numpy() == pytest.approx(divergence, rel=1e-5)
    assert "distill" not in token_losses(logits, ids, mask, None)


@settings(max_examples=20, deadline=None)
@given(top=st.integers(1, 40), seed=st.integers(0, 50))
def test_with_the_likeliest_tokens_alone_it_is_a_lower_bound(top, seed):
    (logits, ids, mask), (dense, _, _) = batch(40, seed), batch(40, seed + 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TOP", top)
        made = token_losses(logits, ids, mask, TopTokens.of(dense))["distill"].numpy()
        same = token_losses(dense, ids, mask, TopTokens.of(dense))["distill"].numpy()
    _, exact = formulas(logits, ids, dense)
    assert (made <= exact + 1e-5).all()
    assert (made >= -1e-6).all()
    assert same == pytest.approx(np.zeros(len(LENGTHS)), abs=0)
    if top >= 30:
        assert made == pytest.approx(exact, rel=0.01)


def test_what_stands_in_the_padding_does_not_matter():
    logits, ids, mask = batch(12)
    top = TopTokens.of(batch(12, seed=1)[0])
    expected = token_losses(logits, ids, mask, top)
    ids[mask == 0] = 3
    logits[mask == 0] = 7.0
    for measure, losses in token_losses(logits, ids, mask, top).items():
        assert torch.equal(losses, expected[measure])


def test_half_precision_logits_are_read_in_full():
    logits, ids, mask = batch(30)
    half = logits.bfloat16()
    made = token_losses(half, ids, mask, TopTokens.of(half))
    loss, _ = formulas(half.float(), ids, half.float())
    assert made["loss"].numpy() == pytest.approx(loss, rel=1e-5)
    assert made["distill"].abs().max() == 0
