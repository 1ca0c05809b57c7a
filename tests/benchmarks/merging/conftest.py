"""The tiny fine-tunes as one merging problem."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks.merging.load import Loaded, load

if TYPE_CHECKING:
    from benchmarks.merging.problem import MergeProblem
    from benchmarks.quality.tasks import FineTune


@pytest.fixture(scope="session")
def merging(fine_tunes: list[FineTune]) -> Loaded:
    """Not to be changed, but for the weights in its encoder."""
    return load(fine_tunes, "cpu", n_rows=16)


@pytest.fixture
def problem(merging: Loaded) -> MergeProblem:
    """Tuned for the divergence, which moves with every weight."""
    return replace(merging.problem, objective="divergence")
