"""The common interface of all methods, and what baselines share: what is written is what counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from benchmarks.methods.archive import Part, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from benchmarks.methods.problem import Problem, Receiver

Parts: TypeAlias = dict[str, Part]
Setting: TypeAlias = "Mapping[str, Any]"


@dataclass(frozen=True)
class Compressed:
    """A task as its reader gets it.

    Attributes:
        delta: float32 [numel], decoded from the bytes, on the CPU.
        nbytes: Bytes of the task, everything included, with its share of what tasks share.
        shared_nbytes: Bytes that all tasks of the base share, before they are divided.
        tuned: What was found on the calibration data.
        head: Head tensors where the method stores them in its own way.
    """

    delta: Tensor
    nbytes: float
    shared_nbytes: int = 0
    tuned: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Tensor] | None = None


class Method(Protocol):
    """A way to compress a task vector.

    Attributes:
        name: In results.
    """

    name: str

    def settings_of(self, group: str) -> tuple[Setting, ...]:
        """Values of the rate knob for fine-tunes of a group, from few bytes to many."""

    def compress(self, problem: Problem, setting: Setting) -> Compressed:
        """Compress at one setting and decode what was written."""


@dataclass(frozen=True)
class Fitted:
    """What a baseline stores.

    Attributes:
        parts: Of the task.
        shared: Of all tasks of the base together.
        tuned: What was found on the calibration data.
    """

    parts: Parts
    shared: Parts = field(default_factory=dict)
    tuned: dict[str, Any] = field(default_factory=dict)


class Baseline(ABC):
    """A method that stores the body through `archive`, and the head like all others.

    Attributes:
        name: In results.
        settings: Values of the rate knob, the same for all groups.
    """

    name: str
    settings: tuple[Setting, ...]

    def settings_of(self, group: str) -> tuple[Setting, ...]:  # noqa: ARG002
        """As `Method`."""
        return self.settings

    @abstractmethod
    def fit(self, problem: Problem, setting: Setting) -> Fitted:
        """Choose what to store."""

    @abstractmethod
    def decode(self, parts: Parts, shared: Parts, receiver: Receiver) -> Tensor:
        """The task vector, float32 [numel] on the CPU, from what was stored."""

    def compress(self, problem: Problem, setting: Setting) -> Compressed:
        """Fit, write, read back."""
        fitted = self.fit(problem, setting)
        own, shared = pack(fitted.parts), pack(fitted.shared) if fitted.shared else b""
        delta = self.decode(unpack(own), unpack(shared) if shared else {}, problem.receiver)
        nbytes = len(own) + len(shared) / problem.n_tasks + problem.overhead_nbytes
        return Compressed(delta, nbytes, len(shared), fitted.tuned)
