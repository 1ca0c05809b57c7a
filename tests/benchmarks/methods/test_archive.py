"""Parts come back as they were, and a hand-made case has the bytes that it must."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.methods.archive import pack, unpack
from formats.records import DenseLevels, SparseLevels

ONE = np.ones(1, np.float32)
SHAPES = st.integers(0, 300)


@settings(max_examples=25, deadline=None)
@given(arrays(np.float32, SHAPES, elements=st.floats(width=32)), arrays(np.uint8, (3, 7)))
def test_arrays_come_back(values: np.ndarray, table: np.ndarray) -> None:
    back = unpack(pack({"values": values, "table": table}))
    assert list(back) == ["values", "table"]
    for part, array in ((back["values"], values), (back["table"], table)):
        assert isinstance(part, np.ndarray)
        assert part.dtype == array.dtype
        assert part.shape == array.shape
        assert part.tobytes() == array.tobytes()


@settings(max_examples=25, deadline=None)
@given(arrays(np.int8, st.integers(1, 400), elements=st.integers(-127, 127)))
def test_levels_come_back(levels: np.ndarray) -> None:
    positions = np.flatnonzero(levels)
    sparse = SparseLevels(levels.size, positions, levels[positions], ONE)
    back = unpack(pack({"dense": DenseLevels(levels.size, levels, ONE), "sparse": sparse}))
    assert isinstance(back["dense"], DenseLevels)
    assert isinstance(back["sparse"], SparseLevels)
    np.testing.assert_array_equal(back["dense"].levels, levels)
    np.testing.assert_array_equal(back["sparse"].positions, positions)
    np.testing.assert_array_equal(back["sparse"].levels, levels[positions])


@pytest.mark.parametrize("spread", [0.5, 1.0, 3.0])
def test_dense_levels_take_at_most_three_percent_over_their_entropy(spread: float) -> None:
    rng = np.random.default_rng(3)
    levels = np.round(rng.standard_normal(400_000) * spread).astype(np.int8)
    _, counts = np.unique(levels, return_counts=True)
    shares = counts / levels.size
    entropy_nbytes = -(shares * np.log2(shares)).sum() * levels.size / 8
    assert entropy_nbytes <= len(pack({"levels": DenseLevels(levels.size, levels, ONE)}))
    assert len(pack({"levels": DenseLevels(levels.size, levels, ONE)})) < 1.03 * entropy_nbytes


def test_random_bytes_are_stored_as_they_are() -> None:
    noise = np.random.default_rng(0).integers(0, 256, 10_000).astype(np.uint8)
    assert noise.size < len(pack({"noise": noise})) < noise.size + 100
