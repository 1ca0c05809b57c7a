"""The gradient of a live model at chosen elements of its weights."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nps_store.switch import AddAt, apply_, revert_

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nps_store.calibration.lessons import Lesson, Lessons


@dataclass(frozen=True, eq=False)
class Place:
    """Elements of one live tensor.

    Attributes:
        live: The tensor.
        positions: int64 [n], flat and increasing, on its device.
    """

    live: Tensor
    positions: Tensor


class LiveLearner:
    """Implements the search's `Learner` on a body whose weights are put in place by apply/revert.

    A parameter's gradient is read at the places and dropped as soon as it is complete, so that the
    gradients of the whole model never lie in memory together.
    """

    def __init__(
        self,
        lessons: Lessons,
        places: Sequence[Place],
        *,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        """Begin to learn.

        Args:
            lessons: To learn from.
            places: Whose gradient is wanted.
            on_step: Called after each step with how many there were.
        """
        self._lessons: Iterator[Lesson] = iter(lessons)
        self._on_step = on_step
        self._n_steps = 0
        self._loss = lessons.loss
        self._places = places
        self._sizes = [len(place.positions) for place in places]
        self._found: dict[Place, Tensor] = {}

    def __call__(self, values: Tensor) -> tuple[float, Tensor]:
        """Loss and gradient on the next lesson."""
        parts = torch.split(values, self._sizes)
        log = apply_(
            (place.live, AddAt(place.positions, part))
            for place, part in zip(self._places, parts, strict=True)
        )
        self._found.clear()
        try:
            with torch.enable_grad():
                loss = self._loss(next(self._lessons))
                loss.backward()  # type: ignore[no-untyped-call]
        finally:
            revert_(log)
        found = [
            self._found.get(place, torch.zeros_like(part))
            for place, part in zip(self._places, parts, strict=True)
        ]
        self._n_steps += 1
        if self._on_step is not None:
            self._on_step(self._n_steps)
        return float(loss.detach()), torch.cat(found)

    @contextmanager
    def watching(self, module: nn.Module) -> Iterator[LiveLearner]:
        """Gradients of the module's parameters are wanted within the context."""
        parameters = {parameter.data_ptr(): parameter for parameter in module.parameters()}
        watched: list[nn.Parameter] = []
        hooks = []
        for place in self._places:
            parameter = parameters.get(place.live.data_ptr())
            if parameter is not None:
                watched.append(parameter)
                parameter.requires_grad_(True)
                read = self._read(place)
                hooks.append(parameter.register_post_accumulate_grad_hook(read))  # type: ignore[no-untyped-call]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()
            for own in watched:
                own.requires_grad_(False)

    def _read(self, place: Place) -> Callable[[Tensor], None]:
        def read(parameter: Tensor) -> None:
            if parameter.grad is not None:
                self._found[place] = parameter.grad.reshape(-1)[place.positions].float()
                parameter.grad = None

        return read
