"""One tiny fine-tune with both of its sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.transfer.bench import Bench
from benchmarks.transfer.docstrings import Pair
from tests.tiny import WORDS

if TYPE_CHECKING:
    from benchmarks.quality.tasks import FineTune

PAIRS = [Pair(f"{a} {b}", f"{b} for the {a}") for a in WORDS[:6] for b in WORDS[6:]]


@pytest.fixture(scope="session")
def bench(fine_tunes: list[FineTune]) -> Bench:
    """Of the task of three classes; not to be changed."""
    return Bench(fine_tunes[1], {"calibration": PAIRS[::2], "test": PAIRS[1::2]}, "cpu", 16)
