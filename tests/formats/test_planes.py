from __future__ import annotations

import numpy as np
import pytest

from formats.codecs import planes


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8])
@pytest.mark.parametrize("numel", [0, 1, 5])
def test_round_trip(itemsize: int, numel: int) -> None:
    data = bytes(range(itemsize * numel))
    assert planes.join(planes.split(data, itemsize), itemsize) == data


def test_all_first_bytes_come_first() -> None:
    assert planes.split(b"aAbBcC", 2) == b"abcABC"


def test_elements_are_read_only() -> None:
    elements = planes.as_elements(bytearray(b"\x01\x00\x02\x00"), np.dtype("<u2"))
    assert elements.tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        elements[0] = 7
