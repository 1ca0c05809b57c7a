"""Stored tasks on one live body, put in place the way that recipes combine them."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from nps_store.calibration import Examples, Part, Runner
from nps_store.calibration.learner import Place
from nps_store.fusion.learner import MergeLearner
from nps_store.modeling.live import LiveBase
from nps_store.recipes.merged import AlignedTensor, groups, most_groups
from nps_store.switch import apply_, revert_

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from nps_store.calibration import Row
    from nps_store.calibration.lessons import Lessons
    from nps_store.modeling.live import PreparedTask
    from nps_store.recipes import Recipe
    from nps_store.store import Store
    from nps_store.switch import Patch, SparseDelta


class LiveMembers:
    """The members of recipes that are yet to be made, decoded once.

    Attributes:
        live: The body.
        base: The base itself, prepared once.
    """

    def __init__(self, store: Store, *, device: str = "cpu") -> None:
        """Load the base.

        Args:
            store: Where the members are.
            device: Where to run.
        """
        self.live = LiveBase.load(store, device=device)
        self.base = self.live.prepare(None)
        self._store = store
        self._names = [tensor.name for tensor in store.base_tensors]
        self._tensors: dict[str, Tensor] = {}
        self._patches: dict[str, dict[str, Patch]] = {}

    @property
    def n_groups(self) -> int:
        """Groups of the base's tensors that a recipe can tell apart, at most."""
        return most_groups(self._names)

    def join(self, name: str) -> PreparedTask:
        """Make a task or recipe of the store one of the members, in the order of summation.

        Raises:
            UnsupportedTaskError: It cannot run on the shared body.
        """
        prepared = self.live.prepare(name)
        patches = self._patches[name] = {}
        for change in self._store.changes_at_once(name):
            live = prepared.shell.body_tensor(change.name)
            if change.base is not None and change.patch is not None and live is not None:
                patches[change.base] = change.patch
                self._tensors[change.base] = live
        return prepared

    def framed(
        self, parts: Iterable[Sequence[Row]], own: PreparedTask, other: PreparedTask, *, where: str
    ) -> list[Part]:
        """Texts with what all else on them is compared with: outputs under the own weights, and
        under the other's. Leaves the base in place.

        Args:
            parts: Rows.
            own: Whose head and tokenizer are used.
            other: What is put in place second.
            where: Whose rows they are, for errors.

        Raises:
            CalibrationError: They are not rows for `own`.
        """
        live, shell, tokenizer = self.live, own.shell, own.tokenizer
        runners = [
            Runner(shell, tokenizer, Examples.of(rows, shell, tokenizer, where=where))
            for rows in parts
        ]
        live.switch_(own)
        for runner in runners:
            runner.refer_()
        best = [runner() for runner in runners]
        live.switch_(other)
        worst = [runner() for runner in runners]
        live.switch_(self.base)
        return [Part(*each) for each in zip(runners, best, worst, strict=True)]

    @contextmanager
    def in_place(self, recipe: Recipe) -> Iterator[None]:
        """With what a recipe of the members makes of the base."""
        log = apply_((self._tensors[name], patch) for name, patch in self.changes(recipe))
        try:
            yield
        finally:
            revert_(log)

    def changes(self, recipe: Recipe) -> Iterator[tuple[str, SparseDelta]]:
        """What a recipe of the members makes of the base's tensors, by their names."""
        group_of = groups(self._names, recipe.n_groups)
        for name, aligned in self._aligned.items():
            yield name, aligned.merged(recipe, group_of[name])

    def learner(self, lessons: Mapping[str, Lessons], n_groups: int) -> MergeLearner:
        """Learns how much of each member there shall be in each group of tensors.

        Args:
            lessons: Of all members.
            n_groups: Groups.
        """
        group_of = groups(self._names, n_groups)
        tensors = [(aligned, group_of[name]) for name, aligned in self._aligned.items()]
        places = [
            Place(self._tensors[name], aligned.where.positions())
            for name, aligned in self._aligned.items()
        ]
        return MergeLearner(self.live.body.module, tensors, places, lessons)

    def vectors(self, member: str) -> Iterator[tuple[str, Tensor]]:
        """(base name, what the member adds to elements of it, float32 [n]), tensor by tensor."""
        for name, aligned in self._aligned.items():
            if member in aligned.deltas:
                yield name, aligned.deltas[member]

    @cached_property
    def _aligned(self) -> dict[str, AlignedTensor]:
        """Where the tensors lie."""
        numels = {name: tensor.numel() for name, tensor in self._tensors.items()}
        dtype, base = self.live.body.dtype, self._store.base
        aligned = {
            name: AlignedTensor.of(
                name, self._patches, self._patches, numels,
                lambda other: base.tensor(other).reshape(-1).to(dtype),
            )
            for name in self._tensors
        }  # fmt: skip
        device = self.live.body.device
        return {name: each.to(device) for name, each in aligned.items() if each is not None}
