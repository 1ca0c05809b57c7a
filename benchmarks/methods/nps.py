"""This project's own points: a store is written, and what the file holds is what is evaluated."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.methods.method import Compressed, Setting
from nps_store.compress import Options, TaskSource, compress
from nps_store.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.methods.problem import Problem

KEEPS = tuple({"keep": keep} for keep in (0.0015, 0.003, 0.006, 0.012, 0.03))
LANGUAGE = tuple(
    [{"target": target} for target in (0.98, 0.99, 0.995)]
    + [{"keep": keep} for keep in (0.005, 0.01, 0.02, 0.035, 0.06, 0.12, 0.2, 0.35)]
)
"""Of language models, whose fine-tunes go further from their base."""
FEW_KEEPS = tuple({"keep": keep} for keep in (0.0025, 0.005, 0.01, 0.04, 0.1, 0.2))
"""For variants; the last three are those that the paper reports."""
TARGETS = tuple({"target": target} for target in (0.95, 0.97, 0.98, 0.99))


@dataclass(frozen=True)
class Nps:
    """`nps compress` with one of its methods.

    Attributes:
        name: In results.
        settings: Options that set the rate.
        language: The same for language models, where it is not the same.
        options: Options beside them.
    """

    name: str = "NPS"
    settings: tuple[Setting, ...] = TARGETS + KEEPS
    language: tuple[Setting, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def settings_of(self, group: str) -> tuple[Setting, ...]:
        """As `Method`."""
        if group.startswith("lm-") and self.language is not None:
            return self.language
        return self.settings

    def compress(self, problem: Problem, setting: Setting) -> Compressed:
        """Write a store of this one task and read its weights back."""
        source = problem.source
        options = Options(device=source.device, **self.options, **setting)
        task = TaskSource(problem.task, source.fine_tune, source.calibration)
        with tempfile.TemporaryDirectory(prefix="nps-quality-") as directory:
            path = Path(directory) / "one.nps"
            (stored,) = compress(source.base, [task], path, options=options)
            with Store.open(path, base=source.base) as store:
                tensors = store.materialize(problem.task)
        names = problem.forward.names
        weights = problem.layout.flatten({own: tensors[names[own]] for own in names}, "cpu")
        device = problem.base.device
        head = {name: tensors[name].to(device) for name in problem.forward.head}
        tuned = {"keep": stored.keep, "quality": stored.quality and stored.quality.to_json()}
        return Compressed(weights - problem.receiver.base, stored.nbytes, 0, tuned, head)
