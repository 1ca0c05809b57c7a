"""Several tasks of a store merged on one live body, each judged with its own head."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from nps_store.calibration import Examples, Part, Runner, split_rows
from nps_store.errors import CalibrationError
from nps_store.modeling.live import LiveBase
from nps_store.recipes.merged import AlignedTensor, groups
from nps_store.switch import ResidentTask, Targets, apply_, revert_

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from nps_store.calibration import Row
    from nps_store.fusion.search import FusionPlan
    from nps_store.modeling.live import PreparedTask
    from nps_store.recipes import Recipe
    from nps_store.store import Store
    from nps_store.switch import Patch

SPLIT = (0.75, 0.25)
"""Shares of a member's rows for the search and for measuring what it found."""


class LiveMerge:
    """One body, the heads of all members, and calibration texts of each.

    What a member is compared with are its own outputs alone in place, as it is stored.
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
        self._names = [tensor.name for tensor in store.base_tensors]
        self._live = LiveBase.load(store, device=device)
        self._targets = Targets(self._live.body.parameters.values())
        self._rows = {name: split_rows(rows, SPLIT, seed=seed) for name, rows in data.items()}
        self._search: dict[str, Part] = {}
        self._measured: dict[str, Part] = {}
        patches: dict[str, dict[str, Patch]] = {}
        self._tensors: dict[str, Tensor] = {}
        for name in data:
            prepared = self._live.prepare(name)
            self._frame(prepared, name)
            patches[name], found = _patches(store, name, prepared)
            self._tensors |= found
        self._align(store, patches)

    def bounded(self, plan: FusionPlan) -> FusionPlan:
        """A plan with a group for each layer at most, and one for what is in none."""
        n_groups = len({*groups(self._names, 1 << 10).values()})
        return replace(plan, groups=min(plan.groups, n_groups))

    def loss(self, recipe: Recipe) -> float:
        """Share of the gain lost, the mean of the members, on the texts of the search."""
        return math.fsum(self._lost(recipe, self._search).values()) / len(self.members)

    def kept(self, recipe: Recipe) -> dict[str, float]:
        """Share of each member's gain that is kept on the texts set aside."""
        return {name: 1 - lost for name, lost in self._lost(recipe, self._measured).items()}

    def _lost(self, recipe: Recipe, parts: Mapping[str, Part]) -> dict[str, float]:
        group_of = groups(self._names, recipe.n_groups)
        changes = (
            (self._tensors[name], aligned.merged(recipe, group_of[name]))
            for name, aligned in self._aligned.items()
        )
        log = apply_(ResidentTask.of(self._targets, changes))
        try:
            return {name: part.gain_lost("distill") for name, part in parts.items()}
        finally:
            revert_(log)

    def measured_rows(self, name: str) -> list[Row]:
        """A member's rows that the search does not see; all of them where there are too few."""
        searched, measured = self._rows[name]
        return measured or searched

    def _frame(self, prepared: PreparedTask, name: str) -> None:
        """Run a member alone, and the base, on its texts."""
        runners = []
        for rows in (self._rows[name][0], self.measured_rows(name)):
            examples = Examples.of(rows, prepared.shell, prepared.tokenizer, where=name)
            runners.append(Runner(prepared.shell, prepared.tokenizer, examples))
        self._live.switch_(prepared)
        for runner in runners:
            runner.refer_()
        alone = [runner() for runner in runners]
        self._live.switch_(self._live.prepare(None))
        parts = [Part(runner, one, runner()) for runner, one in zip(runners, alone, strict=True)]
        if parts[0].gain("distill") <= 0:
            raise CalibrationError(
                f"task {name!r}: on the calibration data its outputs are those of the base; give "
                "other data"
            )
        self._search[name], self._measured[name] = parts

    def _align(self, store: Store, patches: Mapping[str, Mapping[str, Patch]]) -> None:
        numels = {name: tensor.numel() for name, tensor in self._tensors.items()}
        dtype = self._live.body.dtype
        self._aligned: dict[str, AlignedTensor] = {}
        for name in self._tensors:
            found = AlignedTensor.of(
                name, self.members, patches, numels,
                lambda other: store.base.tensor(other).reshape(-1).to(dtype),
            )  # fmt: skip
            if found is not None:
                self._aligned[name] = found


def _patches(
    store: Store, name: str, prepared: PreparedTask
) -> tuple[dict[str, Patch], dict[str, Tensor]]:
    """A member's changes and the live tensors that they are for, by names of the base's tensors."""
    patches, tensors = {}, {}
    for change in store.changes_at_once(name):
        live = prepared.shell.body_tensor(change.name)
        if change.base is not None and change.patch is not None and live is not None:
            patches[change.base], tensors[change.base] = change.patch, live
    return patches, tensors
