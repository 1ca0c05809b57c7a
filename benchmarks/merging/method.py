"""The common interface of merging methods, and how those with free parameters are tuned."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from benchmarks.methods.tuning import Judge, best_scale

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from benchmarks.merging.problem import MergeProblem

P = TypeVar("P", bound=Judge)
SCALES = tuple(math.exp(x / 2) for x in range(-5, 6))
"""First look at scales: 0.08 to 12."""


@dataclass(frozen=True)
class Merged:
    """What a method makes of a problem.

    Attributes:
        delta: float32 [numel], to be added to the base.
        tuned: What was found on the calibration data.
    """

    delta: Tensor
    tuned: dict[str, Any] = field(default_factory=dict)


class MergeMethod(Protocol):
    """A way to merge task vectors.

    Attributes:
        name: In results.
    """

    name: str

    def merge(self, problem: MergeProblem) -> Merged:
        """One vector for all tasks."""


class Tuned(ABC, Generic[P]):
    """A method with a scale, and maybe more, that is tuned on a problem's loss.

    Attributes:
        name: In results.
        scales: What to look at first.
    """

    name: str
    scales: Sequence[float] = SCALES

    @abstractmethod
    def candidates(self, problem: P) -> Iterator[tuple[Mapping[str, Any], Tensor]]:
        """Settings, and the vector float32 [numel] that each gives before it is scaled."""

    def merge(self, problem: P) -> Merged:
        """The candidate and scale of least loss."""
        return self.best(self.candidates(problem), problem)

    def best(self, candidates: Iterable[tuple[Mapping[str, Any], Tensor]], judge: Judge) -> Merged:
        """The candidate and scale of least loss.

        Raises:
            ValueError: There are none.
        """
        best: Merged | None = None
        for setting, vector in candidates:
            scale, loss = best_scale(judge, vector, self.scales)
            if best is None or loss < best.tuned["loss"]:
                best = Merged(vector * scale, {**setting, "scale": scale, "loss": loss})
        if best is None:
            raise ValueError(f"{self.name}: no candidates")
        return best


class Estimated(Tuned["MergeProblem"]):
    """A method that estimates something from texts, which tells little about these texts.

    Settings and scale are found on one half of the calibration data with estimates from the other;
    then the estimates are made anew from all of it.
    """

    def merge(self, problem: MergeProblem) -> Merged:
        """The candidate and scale of least loss on texts that it has not seen."""
        seen, unseen = problem.halves()
        tuned = self.best(self.candidates(seen), unseen).tuned
        for setting, vector in self.candidates(problem):
            if setting.items() <= tuned.items():
                return Merged(vector * tuned["scale"], tuned)
        raise ValueError(f"{self.name}: other candidates with more data")
