"""The common interface of transfer methods: a vector for the base, tuned on both sides."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from benchmarks.merging.method import Merged, Tuned
from benchmarks.transfer.problem import TransferProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

SCALES = tuple(math.exp(x / 2) for x in range(-5, 4))
"""First look at lambdas: 0.08 to 4.5."""


class TransferMethod(Protocol):
    """A way to put a task into a base.

    Attributes:
        name: In results.
    """

    name: str

    def merge(self, problem: TransferProblem) -> Merged:
        """The change of the base's weights."""


class Scaled(Tuned[TransferProblem]):
    """A method with a lambda, which is tuned for the H-score."""

    scales: Sequence[float] = SCALES
