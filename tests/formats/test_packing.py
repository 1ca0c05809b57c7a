from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.codecs import packing
from formats.errors import CorruptStreamError


@pytest.mark.parametrize(
    ("n_levels", "digits"),
    [(2, 8), (3, 5), (4, 4), (5, 3), (6, 3), (7, 2), (16, 2), (17, 1), (255, 1), (256, 1)],
)
def test_digits_per_byte(n_levels: int, digits: int) -> None:
    assert packing.digits_per_byte(n_levels) == digits


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(st.integers(-128, 127), st.integers(-128, 127)).map(sorted),
    st.integers(0, 40),
    st.integers(0, 99),
)
def test_round_trip(bounds: list[int], numel: int, seed: int) -> None:
    low, high = bounds
    levels = np.random.default_rng(seed).integers(low, high + 1, numel).astype(np.int8)
    data = packing.encode(levels, low, high)
    assert len(data) == packing.packed_nbytes(numel, low, high)
    assert np.array_equal(packing.decode(data, numel, low, high), levels)


def test_first_element_is_the_lowest_digit() -> None:
    assert packing.encode(np.array([1, 0, -1, -1, 1, 1], np.int8), -1, 1) == bytes([2 + 3 + 162, 2])


def test_impossible_bytes_and_digits_behind_the_end_are_refused() -> None:
    with pytest.raises(CorruptStreamError, match="out of range"):
        packing.decode(bytes([243]), 5, -1, 1)
    with pytest.raises(CorruptStreamError, match="behind"):
        packing.decode(bytes([3]), 1, -1, 1)
