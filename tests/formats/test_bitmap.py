from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.codecs import bitmap
from formats.errors import CorruptStreamError


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 70).flatmap(lambda n: st.lists(st.booleans(), min_size=n, max_size=n)))
def test_equals_packbits_and_round_trips(kept: list[bool]) -> None:
    positions = np.flatnonzero(kept).astype(np.int64)
    data = bitmap.encode(positions, len(kept))
    assert data == np.packbits(np.array(kept, bool), bitorder="little").tobytes()
    assert np.array_equal(bitmap.decode(data, len(kept), positions.size), positions)


def test_bit_order_is_little_and_one_is_kept() -> None:
    assert bitmap.encode(np.array([0, 9]), 10) == bytes([0b1, 0b10])


def test_wrong_count_and_bits_beyond_the_tensor_are_refused() -> None:
    with pytest.raises(CorruptStreamError, match="number of bits"):
        bitmap.decode(b"\x07", 8, 2)
    with pytest.raises(CorruptStreamError, match="beyond"):
        bitmap.decode(b"\x80", 7, 1)
