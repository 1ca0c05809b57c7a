"""What a method is given: a task vector, the model around it, calibration data; no test data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from benchmarks.methods.forward import Forward, Reference
    from benchmarks.methods.layout import Layout


@dataclass(frozen=True)
class Receiver:
    """What a reader has before the first byte arrives: all that decoding may use.

    Attributes:
        layout: Of the flat vector.
        base: float32 [numel], on the CPU.
        dtypes: Dtype of every base tensor, as safetensors names it.
        seed: Of masks that cost no bytes; different for every task.
        position: Which of the tasks of the base this one is.
    """

    layout: Layout
    base: Tensor
    dtypes: dict[str, str]
    seed: int
    position: int = 0


@dataclass(frozen=True)
class Source:
    """The directories behind a problem, for methods that read them themselves."""

    base: Path
    fine_tune: Path
    calibration: Path
    device: str


@dataclass(frozen=True, eq=False)
class Problem:
    """One task to compress.

    Attributes:
        task: Its name.
        receiver: What its reader has.
        forward: Its model.
        base: float32 [numel], on the model's device.
        dense: float32 [numel], the fine-tune's weights.
        delta: float32 [numel], the task vector: their difference.
        calibration: The calibration data, with the dense fine-tune's answers.
        group: The task vectors of all tasks of this base in order, this one among them.
        n_tasks: How many those are.
        overhead_nbytes: Bytes of the head and the attached files, the same for every method.
        source: Its directories.
    """

    task: str
    receiver: Receiver
    forward: Forward
    base: Tensor
    dense: Tensor
    delta: Tensor
    calibration: Reference
    group: Callable[[], list[Tensor]]
    n_tasks: int
    overhead_nbytes: int
    source: Source
    _cache: dict[str, float] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        """Of all flat vectors."""
        return self.receiver.layout

    @property
    def seed(self) -> int:
        """Of masks that cost no bytes."""
        return self.receiver.seed

    def loss(self, delta: Tensor) -> float:
        """Mean KL from the dense fine-tune on the calibration data."""
        return self.calibration.loss(self.base + delta)

    @property
    def base_loss(self) -> float:
        """The loss of keeping nothing."""
        if "base" not in self._cache:
            self._cache["base"] = self.calibration.loss(self.base)
        return self._cache["base"]
