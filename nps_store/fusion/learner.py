"""The gradient of a live merge in its weights.

As AdaMerging (arXiv 2310.02575) learns them without labels; but a merge is told how far it is from
each member alone, not how sure of itself it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nps_store.calibration.learner import LiveLearner
from nps_store.recipes import LINEAR, combined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from nps_store.calibration.learner import Place
    from nps_store.calibration.lessons import Lessons
    from nps_store.recipes.merged import AlignedTensor


class MergeLearner:
    """Implements the search's `Learner`: the merge is put into a live body by apply/revert, once
    for each member's next lesson."""

    def __init__(
        self,
        module: nn.Module,
        tensors: Sequence[tuple[AlignedTensor, int]],
        places: Sequence[Place],
        lessons: Mapping[str, Lessons],
    ) -> None:
        """Begin to learn.

        Args:
            module: The body.
            tensors: What the members change, and the group of each.
            places: Where that lies in the body.
            lessons: Of every member.
        """
        self._module = module
        self._tensors = tensors
        self._sizes = [len(place.positions) for place in places]
        self._row_of = {member: row for row, member in enumerate(lessons)}
        self._learners = [LiveLearner(each, places) for each in lessons.values()]

    def __call__(self, weights: Tensor) -> tuple[float, Tensor]:
        """The mean loss of the members under float32 [members, groups] weights, and its gradient,
        likewise."""
        values = torch.cat([self._merged(weights, *each) for each in self._tensors])
        losses, gradient = [], torch.zeros_like(values)
        for learner in self._learners:
            with learner.watching(self._module):
                loss, found = learner(values)
            losses.append(loss)
            gradient += found
        total = torch.zeros_like(weights)
        parts = torch.split(gradient, self._sizes)
        for (aligned, group), part in zip(self._tensors, parts, strict=True):
            for member, delta in aligned.deltas.items():
                total[self._row_of[member], group] += (delta @ part).to(total.device)
        return sum(losses) / len(losses), total / len(losses)

    def _merged(self, weights: Tensor, aligned: AlignedTensor, group: int) -> Tensor:
        rows = [self._row_of[member] for member in aligned.deltas]
        return combined(LINEAR, [*aligned.deltas.values()], weights[rows, group].tolist(), {})
