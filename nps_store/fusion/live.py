"""Several tasks of a store merged on one live body, each judged with its own head."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from nps_store.calibration import Examples, split_rows
from nps_store.calibration.lessons import Lessons
from nps_store.errors import CalibrationError
from nps_store.fusion.members import LiveMembers
from nps_store.recipes import MOST_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nps_store.calibration import Part, Row
    from nps_store.fusion.learner import MergeLearner
    from nps_store.fusion.search import FusionPlan
    from nps_store.modeling.live import PreparedTask
    from nps_store.recipes import Recipe
    from nps_store.store import Store

SPLIT = (0.75, 0.25)
"""Shares of a member's rows for the search and for measuring what it found."""
LESSON_TEXTS = 1024
"""Texts of each member to learn weights from: few numbers, which few texts tell."""


class LiveMerge:
    """One body, the heads of all members, and calibration texts of each.

    What a member is compared with are its own outputs alone in place, as it is stored.

    Attributes:
        members: Names of the tasks.
    """

    def __init__(
        self, store: Store, data: Mapping[str, Sequence[Row]], *, device: str = "cpu", seed: int = 0
    ) -> None:
        """Load the base, prepare all members and run each alone.

        Args:
            store: Where the members are.
            data: Calibration rows of every member, in the order of summation.
            device: Where to run.
            seed: Of the split of the rows.

        Raises:
            CalibrationError: The data cannot tell a member from the base.
            UnsupportedTaskError: A member cannot run on the shared body.
        """
        self.members = tuple(data)
        self._live = LiveMembers(store, device=device)
        self._seed = seed
        self._rows = {name: split_rows(rows, SPLIT, seed=seed) for name, rows in data.items()}
        self._search: dict[str, Part] = {}
        self._measured: dict[str, Part] = {}
        self._prepared = {name: self._live.join(name) for name in data}
        for name, prepared in self._prepared.items():
            self._frame(prepared, name)

    def bounded(self, plan: FusionPlan) -> FusionPlan:
        """A plan with no more groups than the base's tensors make or a small recipe holds."""
        held = max(1, MOST_WEIGHTS // len(self.members))
        return replace(plan, groups=min(plan.groups, self._live.n_groups, held))

    def loss(self, recipe: Recipe) -> float:
        """Share of the gain lost, the mean of the members, on the texts of the search."""
        return math.fsum(self._lost(recipe, self._search).values()) / len(self.members)

    def learner(self, n_groups: int) -> MergeLearner:
        """Learns the weights of members and groups on the texts of the search and variations of
        them."""
        lessons = {name: self._lessons(name) for name in self.members}
        return self._live.learner(lessons, n_groups)

    def kept(self, recipe: Recipe) -> dict[str, float]:
        """Share of each member's gain that is kept on the texts set aside."""
        return {name: 1 - lost for name, lost in self._lost(recipe, self._measured).items()}

    def _lost(self, recipe: Recipe, parts: Mapping[str, Part]) -> dict[str, float]:
        with self._live.in_place(recipe):
            return {name: part.gain_lost("distill") for name, part in parts.items()}

    @property
    def unmeasured(self) -> list[str]:
        """Members with too few rows to set any aside: `kept` is of those of the search."""
        return [name for name, (_, measured) in self._rows.items() if not measured]

    def measured_rows(self, name: str) -> list[Row]:
        """A member's rows that the search does not see; all of them where there are too few."""
        searched, measured = self._rows[name]
        return measured or searched

    def _lessons(self, name: str) -> Lessons:
        """What a member alone says. Leaves the base in place."""
        live, prepared = self._live.live, self._prepared[name]
        shell, tokenizer = prepared.shell, prepared.tokenizer
        texts = Examples.of(self._rows[name][0], shell, tokenizer, where=name).ids
        live.switch_(prepared)
        try:
            return Lessons.varied(
                shell, tokenizer, texts, seed=self._seed, n_texts=LESSON_TEXTS, match_hidden=False
            )
        finally:
            live.switch_(self._live.base)

    def _frame(self, prepared: PreparedTask, name: str) -> None:
        """Run a member alone, and the base, on its texts."""
        rows = self._rows[name][0], self.measured_rows(name)
        searched, measured = self._live.framed(rows, prepared, self._live.base, where=name)
        if searched.gain("distill") <= 0:
            raise CalibrationError(
                f"task {name!r}: on the calibration data its outputs are those of the base; give "
                "other data"
            )
        self._search[name], self._measured[name] = searched, measured
