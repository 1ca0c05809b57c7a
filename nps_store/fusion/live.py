"""Several tasks of a store merged on one live body, each judged with its own head."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from nps_store.calibration import split_rows
from nps_store.errors import CalibrationError
from nps_store.fusion.members import LiveMembers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nps_store.calibration import Part, Row
    from nps_store.fusion.search import FusionPlan
    from nps_store.modeling.live import PreparedTask
    from nps_store.recipes import Recipe
    from nps_store.store import Store

SPLIT = (0.75, 0.25)
"""Shares of a member's rows for the search and for measuring what it found."""


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
        self._rows = {name: split_rows(rows, SPLIT, seed=seed) for name, rows in data.items()}
        self._search: dict[str, Part] = {}
        self._measured: dict[str, Part] = {}
        for name in data:
            self._frame(self._live.join(name), name)

    def bounded(self, plan: FusionPlan) -> FusionPlan:
        """A plan with a group for each layer at most, and one for what is in none."""
        return replace(plan, groups=min(plan.groups, self._live.n_groups))

    def loss(self, recipe: Recipe) -> float:
        """Share of the gain lost, the mean of the members, on the texts of the search."""
        return math.fsum(self._lost(recipe, self._search).values()) / len(self.members)

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

    def _frame(self, prepared: PreparedTask, name: str) -> None:
        """Run a member alone, and the base, on its texts."""
        rows = self._rows[name][0], self.measured_rows(name)
        base = self._live.live.prepare(None)
        searched, measured = self._live.framed(rows, prepared, base, where=name)
        if searched.gain("distill") <= 0:
            raise CalibrationError(
                f"task {name!r}: on the calibration data its outputs are those of the base; give "
                "other data"
            )
        self._search[name], self._measured[name] = searched, measured
