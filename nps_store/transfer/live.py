"""A part of a task on the live body, judged by what it has of the task and what it leaves of the
base.

No labels are needed: each side is its own teacher. What the part has of the task is how near its
outputs on the task's texts are to those of the whole task, where those of the base's body count as
nothing. What it leaves of the base is how near the base's outputs on the base's texts stay to those
of the base alone, where those under the whole task count as nothing. Outputs of classifiers and
language models are compared by their divergence, vectors by their cosine.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nps_store.calibration import split_rows
from nps_store.errors import CalibrationError
from nps_store.fusion.live import SPLIT
from nps_store.fusion.members import LiveMembers
from nps_store.recipes import N_BANDS
from nps_store.search import Rule
from nps_store.search.pool import band_edges

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nps_store.calibration import Part, Row
    from nps_store.modeling.live import PreparedTask
    from nps_store.recipes import Recipe
    from nps_store.store import Store
    from nps_store.switch import SparseDelta
    from nps_store.transfer.search import TransferPlan


@dataclass(frozen=True)
class Kept:
    """Shares: 1 is the own side alone, 0 the other one.

    Attributes:
        task: Of what the task gains over the base, by its own outputs.
        base: Of what the whole task would lose of the base, by name of the texts.
    """

    task: float
    base: Mapping[str, float]

    @property
    def balance(self) -> float:
        """The harmonic mean of task and base, the base being the mean of its texts; 0 where one of
        them is at nothing or below."""
        return statistics.harmonic_mean(
            [max(self.task, 0.0), max(statistics.fmean(self.base.values()), 0.0)]
        )


class LiveTransfer:
    """One body with the task's head and the base's own; texts of both sides.

    Attributes:
        task: Its name.
        edges: Lower edges of the magnitude bands of its vector, but the first.
    """

    def __init__(
        self,
        store: Store,
        task: str,
        rows: Sequence[Row],
        retain: Mapping[str, Sequence[Row]],
        *,
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        """Load the base, run it and the whole task on the texts of both sides.

        Args:
            store: Where the task is.
            task: Its name.
            rows: Texts of the task.
            retain: Texts of what the base can do, by names of one's own choice.
            device: Where to run.
            seed: Of the split of the rows.

        Raises:
            CalibrationError: The data cannot tell the task from the base.
            UnsupportedTaskError: Task or base cannot be run here.
        """
        self.task = task
        self._live = LiveMembers(store, device=device)
        texts = {task: rows, **retain}
        self._rows = {name: split_rows(each, SPLIT, seed=seed) for name, each in texts.items()}
        prepared, base = self._live.join(task), self._live.base
        framed = [
            self._framed(task, prepared, base),
            *(self._framed(name, base, prepared) for name in retain),
        ]
        self._parts = [dict(zip(texts, parts, strict=True)) for parts in zip(*framed, strict=True)]
        for name, part in self._parts[0].items():
            if part.gain("distill") <= 0:
                raise CalibrationError(
                    f"{name!r}: on the calibration data the outputs under task {task!r} are those "
                    "of the base; give other data"
                )
        rule = Rule(task, n_bands=N_BANDS)
        self.edges = tuple(band_edges(lambda: self._live.vectors(task), rule, device).tolist())

    def bounded(self, plan: TransferPlan) -> TransferPlan:
        """A plan with no more groups than the base's tensors make."""
        return replace(plan, groups=min(plan.groups, self._live.n_groups))

    def changes(self, recipe: Recipe) -> Iterator[tuple[str, SparseDelta]]:
        """What a recipe of the task makes of the base's tensors, by their names."""
        return self._live.changes(recipe)

    def loss(self, recipe: Recipe) -> float:
        """What is missing of the balance on the texts of the search."""
        return 1 - self._kept(recipe, self._parts[0]).balance

    def kept(self, recipe: Recipe) -> Kept:
        """On the texts set aside."""
        return self._kept(recipe, self._parts[1])

    def _kept(self, recipe: Recipe, parts: Mapping[str, Part]) -> Kept:
        with self._live.in_place(recipe):
            kept = {name: 1 - part.gain_lost("distill") for name, part in parts.items()}
        return Kept(kept.pop(self.task), kept)

    @property
    def unmeasured(self) -> list[str]:
        """Texts that are too few to set any aside: `kept` is of those of the search."""
        return [name for name, (_, measured) in self._rows.items() if not measured]

    def _framed(self, name: str, own: PreparedTask, other: PreparedTask) -> list[Part]:
        """For the search, and for measuring what it found."""
        searched, measured = self._rows[name]
        return self._live.framed((searched, measured or searched), own, other, where=name)
