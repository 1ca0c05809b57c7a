"""A vLLM model seen as the base of a store: which of its parameters a task changes, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nps_store.checkpoint import DTYPES, tensor_hash
from nps_store.errors import UnsupportedTaskError
from server.engines.vllm.placement import placed
from server.engines.vllm.recorder import record_layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

    from nps_store.store import Change, Store
    from nps_store.switch import Patch
    from nps_store.task import Task


class PlacedModel:
    """A loaded model whose weights are the base's, in vLLM's layout.

    Attributes:
        layout: Where the base's tensors lie.
    """

    def __init__(self, model: nn.Module, store: Store) -> None:
        """Find out the layout, and test it on the base.

        Raises:
            UnsafeLayoutError: Tasks cannot be put into this model (names a parameter).
        """
        self.layout = record_layout(model, {each.name: each.shape for each in store.base_tensors})
        self.layout.check(store.base.tensor)
        self._held_as_one = self.layout.held_as_one()

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The model's parameters."""
        return self.layout.parameters

    def pairs(self, store: Store, name: str) -> Iterator[tuple[Tensor, Patch]]:
        """What a task does to the model, for `ResidentTask.of`.

        Args:
            store: A generation that has the task, of the store that the model was bound to.
            name: The task.

        Raises:
            TaskNotFoundError: There is no such task.
            FormatError: The stored task is damaged.
            UnsupportedTaskError: It does not fit this model.
        """
        task = store.task(name)
        patches: dict[str, Patch] = {}
        for change in store.changes(name):
            if change.patch is not None or change.rows is not None:
                base, patch = self._checked(task, change)
                patches[base] = patch
        for group in self._held_as_one:
            changed = [each for each in group if each in patches]
            if changed:
                _check_equal(store, task, group)
            for each in changed[1:]:
                del patches[each]
        yield from placed(self.layout, patches.items())

    def _checked(self, task: Task, change: Change) -> tuple[str, Patch]:
        """The base's tensor and its change, if the model has a place for it in the task's dtype."""
        if change.base is None or change.rows is not None or change.patch is None:
            raise UnsupportedTaskError(
                f"task {task.name!r} has a tensor {change.name!r}, which the model lacks or has in "
                "another shape; `nps export` it and serve it by itself"
            )
        if not self.layout.pieces[change.base]:
            raise UnsupportedTaskError(
                f"task {task.name!r} changes {change.name!r}, which vLLM does not load for this "
                "model"
            )
        for piece in self.layout.pieces[change.base]:
            dtype = self.tensors[piece.parameter].dtype
            if DTYPES[task.dtype] != dtype:
                raise UnsupportedTaskError(
                    f"task {task.name!r} was compressed for {task.dtype}, vLLM runs "
                    f"{str(dtype).removeprefix('torch.')}; compress it with --dtype, or start "
                    "vLLM with another"
                )
        return change.base, change.patch


def _check_equal(store: Store, task: Task, group: tuple[str, ...]) -> None:
    """Tensors that the model holds as one must be equal in the task."""
    name = task.name
    changes = [*store.unchanged(name), *store.changes(name)]
    hashes = {
        tensor_hash(store.resolve(change, task.directory))
        for change in changes
        if change.base in group
    }
    if len(hashes) > 1:
        raise UnsupportedTaskError(
            f"task {name!r} has other values in {group[0]!r} than in {group[1]!r}; the model "
            "holds them as one tensor"
        )
