"""A fine-tune's model around the base's body, with one set of weights after the other in place."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from formats.errors import located
from nps_store.calibration.learner import LiveLearner, Place
from nps_store.modeling import Body, Shell
from nps_store.modeling.live import bind
from nps_store.modeling.shell import Pooling
from nps_store.switch import AddAt, Replace, apply_, revert_

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import torch
    from torch import Tensor

    from nps_store.calibration.lessons import Lessons
    from nps_store.compress.fine_tune import FineTune
    from nps_store.contents import Change
    from nps_store.search import Selection
    from nps_store.store import Store


class LiveFineTune:
    """The base's weights with the fine-tune's head; what is put in place within a context is taken
    out at its end, by the functions that serving uses.

    Attributes:
        shell: The model.
    """

    def __init__(
        self, fine_tune: FineTune, *, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> None:
        """Load the base's body and the fine-tune's head.

        Args:
            fine_tune: Whose model.
            device: Where it lies.
            dtype: Another dtype than the base's own.

        Raises:
            UnsupportedTaskError: The model can be stored, but not run here.
        """
        self._fine_tune = fine_tune
        self._task_names = {base_name: name for name, base_name in fine_tune.pairs}
        rows, config = fine_tune.rows(), fine_tune.ties.config
        body = Body.grown(fine_tune.base, rows, config, device=device, dtype=dtype)
        pooling = Pooling.of_directory(fine_tune.checkpoint.files())
        with located(where=f"task {fine_tune.name!r}"):
            self.shell = Shell(config, body, pooling=pooling)
        self._load_own_tensors()

    @contextmanager
    def dense(self) -> Iterator[None]:
        """With the fine-tune's own weights."""
        with self._in_place(self._fine_tune.dense_changes(), _own_values):
            yield

    @contextmanager
    def stored(self, store: Store) -> Iterator[None]:
        """With the weights that a store holds of the task."""
        name = self._fine_tune.name
        directory = store.task(name).directory
        changes = chain(store.changes(name), store.unchanged(name, self.shell.head))
        with self._in_place(changes, partial(store.resolve, directory=directory)):
            yield

    @contextmanager
    def kept(self, selection: Selection) -> Iterator[None]:
        """With what a selection keeps of the task vector."""
        device = self.shell.body.device
        kept = (
            (self.tensor(base_name), positions.to(device), selection.values_in(span).to(device))
            for base_name, span, positions in selection.tensors()
        )
        log = apply_((live, AddAt(index, delta)) for live, index, delta in kept)
        try:
            yield
        finally:
            revert_(log)

    @contextmanager
    def learner(
        self,
        lessons: Lessons,
        positions: Mapping[str, Tensor],
        *,
        on_step: Callable[[int], None] | None = None,
    ) -> Iterator[LiveLearner]:
        """The model's gradient at positions of base tensors."""
        device = self.shell.body.device
        places = [Place(self.tensor(name), at.to(device)) for name, at in positions.items()]
        learner = LiveLearner(lessons, places, on_step=on_step)
        with learner.watching(self.shell.body.module):
            yield learner

    def tensor(self, base_name: str) -> Tensor:
        """The live tensor."""
        name = self._task_names[base_name]
        live = self.shell.body_tensor(name)
        return self.shell.head[name] if live is None else live

    def _load_own_tensors(self) -> None:
        """What the base lacks is no part of the task vector: the head, and what the base's body
        lacks (a pooler), are the task's own in all that is compared."""
        fine_tune, shell = self._fine_tune, self.shell
        base_names = {name: base_name for base_name, name in self._task_names.items()}
        own = {name: fine_tune.tensor(name) for name in fine_tune.alignment.new}
        from_base = {
            name: fine_tune.base_tensor(base_names[name])
            for name in shell.head
            if name in base_names
        }
        shell.load_head_({**own, **from_base})
        for name, tensor in own.items():
            live = shell.body_tensor(name)
            if live is not None:
                live.copy_(tensor)

    @contextmanager
    def _in_place(
        self, changes: Iterable[Change], resolve: Callable[[Change], Tensor]
    ) -> Iterator[None]:
        """With a task's changes, its head included."""
        head = {name: tensor.clone() for name, tensor in self.shell.head.items()}
        pairs = bind(self.shell, changes, resolve)
        log = apply_((tensor, patch.to(tensor.device)) for tensor, patch in pairs)
        try:
            yield
        finally:
            revert_(log)
            self.shell.load_head_(head)


def _own_values(change: Change) -> Tensor:
    if not isinstance(change.patch, Replace):
        raise TypeError(f"tensor {change.name!r} of a dense fine-tune must be whole")
    return change.patch.values
