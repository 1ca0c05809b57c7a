"""A user's own model seen as the base of a store: which of its tensors a task changes, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nps_store.alignment import StateTable, align
from nps_store.checkpoint import DTYPES, tensor_hash
from nps_store.errors import BaseMismatchError, UnsupportedTaskError
from nps_store.switch.patch import Replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

    from nps_store.contents import Change
    from nps_store.store import Store
    from nps_store.switch.patch import Patch
    from nps_store.task import Task


class BoundModel:
    """A model that holds a store's base, under the base's names or with a prefix.

    Attributes:
        tensors: Of the model, by its own names.
    """

    def __init__(self, model: nn.Module, store: Store) -> None:
        """Find the base's tensors in the model and check that they are the base's.

        Raises:
            BaseMismatchError: A tensor of the model is not the base's (names the first).
        """
        self.tensors: dict[str, Tensor] = dict(model.state_dict(keep_vars=False))
        self._store = store
        self._names = _identified(self.tensors, store)

    def pairs(self, name: str) -> Iterator[tuple[Tensor, Patch]]:
        """Live tensors and what a task does to each, once; a tied one has several names.

        Raises:
            TaskNotFoundError: There is no such task.
            FormatError: The stored task is damaged.
            UnsupportedTaskError: It does not fit this model.
        """
        task = self._store.task(name)
        floating = {t.dtype for t in self.tensors.values() if t.is_floating_point()}
        if DTYPES[task.dtype] not in floating:
            raise UnsupportedTaskError(
                f"task {name!r} was compressed for {task.dtype}, which the model is not in"
            )
        for group in self._placed(task).values():
            tensor, change = group[-1]
            if tensor.numel() and not self._are_equal(task, [change for _, change in group]):
                raise UnsupportedTaskError(
                    f"task {name!r} has other values in {change.name!r} than in "
                    f"{group[0][1].name!r}; the model holds them as one tensor"
                )
            if change.patch is not None:
                yield tensor, change.patch

    def _placed(self, task: Task) -> dict[int, list[tuple[Tensor, Change]]]:
        """Live tensors and the changes that are for them, by address."""
        placed: dict[int, list[tuple[Tensor, Change]]] = {}
        for change in (*self._store.unchanged(task.name), *self._store.changes_at_once(task.name)):
            tensor = self._live(change)
            if tensor is not None:
                placed.setdefault(tensor.data_ptr(), []).append((tensor, change))
            elif change.patch is not None or change.rows is not None:
                raise UnsupportedTaskError(
                    f"task {task.name!r} has a tensor {change.name!r}, which the model lacks "
                    "or has in another shape"
                )
        return placed

    def _live(self, change: Change) -> Tensor | None:
        """The tensor of the model that a change is for, if it has one of that shape."""
        name = change.name if change.base is None else self._names.get(change.base, change.name)
        tensor = self.tensors.get(name)
        if tensor is None or change.rows is not None:
            return None
        if change.base is None and isinstance(change.patch, Replace):
            return tensor if change.patch.values.shape == tensor.shape else None
        return tensor

    def _are_equal(self, task: Task, changes: list[Change]) -> bool:
        if len(changes) == 1:
            return True
        hashes = {tensor_hash(self._store.resolve(c, task.directory)) for c in changes}
        return len(hashes) == 1


def _identified(tensors: Mapping[str, Tensor], store: Store) -> dict[str, str]:
    """Where each tensor of the base is in the model; they are bit-identical."""
    names = dict(align(StateTable(tensors), store.base).shared)
    for known in store.base_tensors:
        if known.name not in names:
            continue
        tensor = tensors[names[known.name]].detach()
        expected = known.hash
        if DTYPES[known.dtype] != tensor.dtype:
            expected = tensor_hash(store.base.tensor(known.name).to(tensor.dtype))
        if tensor_hash(tensor.cpu()) != expected:
            raise BaseMismatchError(
                f"the model does not hold the base of {str(store.path)!r}: tensor "
                f"{names[known.name]!r} differs from the base's {known.name!r}"
            )
    return names
