"""What a user may ask of a compression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from nps_store.checkpoint import DTYPES
from nps_store.errors import BadOptionError
from nps_store.search import RULES

if TYPE_CHECKING:
    from pathlib import Path

    import torch

Measure = Literal["distill", "loss", "accuracy"]
DEFAULT_TARGETS: dict[Measure, float] = {"loss": 0.99, "distill": 0.98}
"""Default quality target: a share of the loss gain, or of the divergence between base and dense
fine-tune, of which .98 goes with about .99 of a classifier's accuracy."""
SAFE_KEEP = 0.04
"""Kept fraction where there is no calibration data to measure anything on."""


@dataclass(frozen=True)
class TaskSource:
    """A fine-tune to store.

    Attributes:
        name: Of the task.
        directory: Its Hugging Face directory.
        calibration: JSON lines to calibrate on, or None.
    """

    name: str
    directory: Path
    calibration: Path | None = None


@dataclass(frozen=True)
class Options:
    """How to compress. At most one of target, keep and max_nbytes.

    Attributes:
        method: nps, topk, dither, dare, magnitude or exact.
        target: Share of the fine-tune's gain to keep.
        keep: Fraction of elements to keep.
        max_nbytes: Bytes a task may take, everything included.
        objective: What the search of the weights minimises; None is divergence from the dense
            fine-tune, and of a language model the loss on its text, in which its quality is
            measured: by divergence, weights seem best that lose its gain.
        dtype: Dtype to compress for ("BF16"), where it is not the base's.
        seed: Of dither, search and data split.
        evaluations: Model evaluations of the weight search.
        steps: Steps of learning the selection by gradients at the first rate; later ones take
            less, since they start from what was learned there.
        search_seconds: Wall-clock budget of the search a task.
        device: Where the model runs during calibration.
    """

    method: str = "nps"
    target: float | None = None
    keep: float | None = None
    max_nbytes: int | None = None
    objective: Measure | None = None
    dtype: str | None = None
    seed: int = 0
    evaluations: int = 30
    steps: int = 200
    search_seconds: float | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check the options against each other.

        Raises:
            BadOptionError: They contradict each other or lie out of range.
        """
        asked = [self.target, self.keep, self.max_nbytes]
        if sum(value is not None for value in asked) > 1:
            raise BadOptionError("give at most one of --target, --keep and --max-bytes")
        if self.method != "exact" and self.method not in RULES:
            known = ", ".join([*RULES, "exact"])
            raise BadOptionError(f"method is {self.method!r}; expected one of {known}")
        if self.method == "exact" and any(value is not None for value in asked):
            raise BadOptionError("--method exact is lossless: it takes no target, keep or size")
        for name, value in (("--target", self.target), ("--keep", self.keep)):
            if value is not None and not 0 < value <= 1:
                raise BadOptionError(f"{name} is {value}; expected a number in (0, 1]")
        if self.max_nbytes is not None and self.max_nbytes <= 0:
            raise BadOptionError(f"--max-bytes is {self.max_nbytes}; expected a positive number")
        for name, count in (("--evaluations", self.evaluations), ("--steps", self.steps)):
            if count < 0:
                raise BadOptionError(f"{name} is {count}; expected 0 or more")
        if self.search_seconds is not None and not self.search_seconds > 0:
            raise BadOptionError(f"--search-seconds is {self.search_seconds}; expected more than 0")
        if self.method == "exact" and self.dtype is not None:
            raise BadOptionError("--method exact is lossless: it takes no --dtype")
        if self.dtype is not None and self.dtype not in {"F32", "F16", "BF16"}:
            raise BadOptionError(f"--dtype is {self.dtype!r}; expected F32, F16 or BF16")

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """The dtype as torch names it."""
        return None if self.dtype is None else DTYPES[self.dtype]


class Progress(Protocol):
    """Listens to a compression."""

    def stage(self, task: str, what: str) -> None:
        """A task enters a stage."""

    def trial(self, task: str, keep: float, loss: float, count: int) -> None:
        """A candidate was evaluated."""

    def step(self, task: str, done: int, total: int) -> None:
        """A step of learning the selection at a rate was made, `done` of at most `total`."""

    def note(self, task: str, text: str) -> None:
        """Something worth telling."""


class Silent:
    """Listens and says nothing."""

    def stage(self, task: str, what: str) -> None:
        """Ignored."""

    def trial(self, task: str, keep: float, loss: float, count: int) -> None:
        """Ignored."""

    def step(self, task: str, done: int, total: int) -> None:
        """Ignored."""

    def note(self, task: str, text: str) -> None:
        """Ignored."""
