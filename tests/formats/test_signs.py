from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.codecs import signs
from formats.errors import CorruptStreamError


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-128, 127).filter(bool), max_size=30))
def test_round_trip(levels: list[int]) -> None:
    array = np.array(levels, np.int8)
    data = signs.encode(array)
    assert len(data) == signs.packed_nbytes(array.size)
    assert np.array_equal(signs.decode(data, array.size), array < 0)


def test_first_entry_is_the_lowest_bit() -> None:
    assert signs.encode(np.array([-1, 1, 1], np.int8)) == b"\x01"


def test_bits_behind_the_last_entry_are_refused() -> None:
    with pytest.raises(CorruptStreamError):
        signs.decode(b"\x08", 3)
