"""The dither on the device is the format's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import formats.dither
from nps_store.search.dither import uniform

BLOCK = formats.dither.BLOCK
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    start=st.integers(0, 2**33),
    n=st.integers(0, 2 * BLOCK + 3),
)
@example(seed=0, start=0, n=0)
@example(seed=2**64 - 1, start=0, n=BLOCK)
@example(seed=1, start=BLOCK - 1, n=2)
@example(seed=1, start=3 * BLOCK, n=1)
def test_equals_the_formats_numbers(device, seed, start, n):
    ours = uniform(seed, start, n, device=device)
    assert ours.dtype == torch.float32
    assert np.array_equal(ours.cpu().numpy(), formats.dither.uniform(seed, start, n))


@pytest.mark.parametrize("device", DEVICES)
def test_all_numbers_of_a_block_occur_once(device):
    numbers = uniform(5, 7 * BLOCK, BLOCK, device=device).cpu().sort().values
    assert torch.equal(numbers, (torch.arange(BLOCK) + 0.5) / BLOCK)
