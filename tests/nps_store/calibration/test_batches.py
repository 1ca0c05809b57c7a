"""Batches hold every text once, are within their limits, and waste little on padding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nps_store.calibration.batches import by_length

LENGTHS = st.lists(st.integers(1, 12), max_size=40)


@settings(max_examples=50)
@given(LENGTHS, st.integers(1, 40), st.integers(1, 6), st.none() | st.integers(0, 9))
def test_every_text_is_in_one_batch_within_its_limits(lengths, most_tokens, most_texts, seed):
    ids = [[0] * length for length in lengths]
    rng = None if seed is None else np.random.default_rng(seed)
    batches = by_length(ids, most_tokens=most_tokens, most_texts=most_texts, rng=rng)
    assert sorted(itertools.chain(*batches)) == list(range(len(ids)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert 1 <= len(batch) <= most_texts
        assert len(batch) == 1 or len(batch) * longest <= most_tokens
    in_turn = [lengths[i] for batch in batches for i in batch]
    assert in_turn == sorted(in_turn)
    for left, right in itertools.pairwise(batches):  # the next text would not have fitted
        too_long = (len(left) + 1) * lengths[right[0]] > most_tokens
        assert len(left) == most_texts or too_long


@pytest.mark.parametrize("seed", [None, 0])
def test_equal_lengths_stay_in_order_unless_they_are_to_be_mixed(seed):
    rng = None if seed is None else np.random.default_rng(seed)
    (batch,) = by_length([[0]] * 30, most_tokens=30, rng=rng)
    assert (batch == list(range(30))) == (seed is None)
