"""A user's own model, made any task of a store on demand."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Self

from nps_store.bound_model import BoundModel
from nps_store.switch.model_switcher import (
    DEFAULT_MAX_HOST_NBYTES,
    DEFAULT_MAX_NBYTES,
    ModelSwitcher,
    SwitchStatistics,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from nps_store.store import Store
    from nps_store.switch.patch import Patch

__all__ = ["SwitchStatistics", "TaskSwitcher"]


class _Content(NamedTuple):
    """A task as it was at some time; one without a hash is not there."""

    name: str
    content_hash: str | None


class TaskSwitcher:
    """Puts the tasks of a store into one live model, in place; a context manager.

    The model holds the base's weights, under the base's names or with a prefix. Its tensors must
    stay where they are. On leaving, the base is in place again, bit for bit.

    Thread-safe. Whoever runs the model while other threads may switch does so within `using`.

    Attributes:
        model: The model.
        store: The store; after a `refresh` of it, tasks that were replaced are prepared anew.
    """

    def __init__(
        self,
        model: nn.Module,
        store: Store,
        *,
        max_nbytes: int = DEFAULT_MAX_NBYTES,
        max_host_nbytes: int = DEFAULT_MAX_HOST_NBYTES,
    ) -> None:
        """Find the base's tensors in the model and check that they are the base's.

        Args:
            model: A model on one device.
            store: Where the tasks are.
            max_nbytes: Of prepared tasks kept for later on the model's device; the one in place is
                kept in any case.
            max_host_nbytes: Of copies in pinned host memory, for a model on a GPU.

        Raises:
            BaseMismatchError: A tensor of the model is not the base's (names the first).
        """
        self.model = model
        self.store = store
        self._bound = BoundModel(model, store)
        self._switcher: ModelSwitcher[_Content] = ModelSwitcher(
            self._bound.tensors.values(),
            self._changes,
            max_nbytes=max_nbytes,
            max_host_nbytes=max_host_nbytes,
        )
        self._generation = store.generation

    @property
    def current(self) -> str | None:
        """The task in place; None for the base.

        Raises:
            WeightsUnsettledError: A failed switch could not be reverted.
        """
        content = self._switcher.current
        return None if content is None else content.name

    @property
    def statistics(self) -> SwitchStatistics:
        """Counts and seconds so far."""
        return self._switcher.statistics

    def switch_(self, name: str | None) -> float:
        """Put a task in place of what is there; all or nothing: a failure leaves the base.

        Args:
            name: The task, or None for the base.

        Returns:
            Seconds of changing weights; 0.0 if the task is in place already.

        Raises:
            TaskNotFoundError: There is no such task.
            FormatError: The stored task is damaged; what was in place stays.
            UnsupportedTaskError: It does not fit this model; what was in place stays.
        """
        return self._switcher.switch_(self._content(name))

    @contextmanager
    def using(self, name: str | None) -> Iterator[nn.Module]:
        """The model with a task in place, which stays there until the block is left.

        Other threads' switches wait for that long. The task stays in place afterwards, until
        another is wanted.
        """
        with self._switcher.using(self._content(name)):
            yield self.model

    def prefetch(self, *names: str) -> None:
        """Prepare tasks on another thread; errors are told when they are switched to."""
        for name in names:
            if (content := self._content(name)) is not None:
                self._switcher.prepare(content)

    def close(self) -> None:
        """Revert to the base and end the thread."""
        self._switcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _content(self, name: str | None) -> _Content | None:
        """What the store has under a name now; what it had before is forgotten."""
        if self._generation != self.store.generation:
            self._generation = self.store.generation
            self._switcher.keep(lambda key: self.store.content_hash(key.name) == key.content_hash)
        return None if name is None else _Content(name, self.store.content_hash(name))

    def _changes(self, content: _Content) -> Iterator[tuple[Tensor, Patch]]:
        return self._bound.pairs(content.name)
