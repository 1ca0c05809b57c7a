"""The engine over `nps_store.modeling`: one live base, switched in place."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import torch

from formats.errors import NpsError
from nps_store.errors import UnsupportedTaskError
from nps_store.modeling import LiveBase, PreparedTask
from nps_store.modeling.body import is_causal_lm
from nps_store.store import Store
from server.engines import Catalog, TaskInfo
from server.engines.torch.inputs import check_token_ids, encode
from server.errors import EngineFailedError, NotReadyError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from nps_store.sources import BaseSource
    from server import engines
    from server.engines import TokenIds

DETAILS = ("method", "quality")  # what of a task's record clients are shown


class TorchEngine:
    """A store on one device.

    Args:
        store: The store's path.
        base: The base's directory; None for where it was at compression.
        device: `cpu` or `cuda`.
    """

    name = "torch"

    def __init__(
        self,
        store: str | os.PathLike[str],
        *,
        base: str | os.PathLike[str] | None = None,
        device: str = "cpu",
    ) -> None:
        self._path = store
        self._base = base
        self._device = device
        self._opened: tuple[Store, LiveBase] | None = None
        self._source: BaseSource | None = None
        self._is_catalog_due = False

    def open(self) -> Catalog:
        """Identify and load the base.

        Raises:
            NpsError: Store and base do not fit, or the device cannot be used.
        """
        _check_device(self._device)
        store = Store.open(self._path, base=self._base)
        try:
            live = LiveBase.load(store, device=self._device)
            live.warm_up()
            catalog = _catalog(store)
        except BaseException:
            store.close()
            raise
        self._opened = store, live
        self._source = store.base
        return catalog

    def close(self) -> None:
        """Let go of the file and the weights."""
        if self._opened is not None:
            self._store.close()
            self._opened = self._source = None

    @property
    def base_nbytes(self) -> int:
        """Bytes of the body's weights."""
        return sum(tensor.nbytes for tensor in self._live.body.parameters.values())

    def refresh(self) -> Catalog | None:
        """The catalog of a newer generation, or None."""
        store = self._store
        self._is_catalog_due |= store.refresh()
        if store.base is not self._source:
            raise EngineFailedError(
                f"{store.path}: the store was remade for another base; start the server again"
            )
        if not self._is_catalog_due:
            return None
        catalog = _catalog(store)
        self._is_catalog_due = False  # only now: a catalog that failed is made again
        return catalog

    def prepare(self, task: str | None, *, copy: bool = False) -> PreparedTask:
        """Read, verify and decode a task; no live weight is touched.

        Raises:
            UnsupportedTaskError: It generates text, or cannot run on this body.
        """
        _check_kind(self._store, task)
        return self._live.prepare(task, copy=copy)

    def encode(
        self,
        prepared: engines.PreparedTask,
        texts: Sequence[str],
        *,
        max_tokens: int | None = None,
    ) -> list[TokenIds]:
        """Token ids by the task's own tokenizer."""
        return encode(_own(prepared), texts, max_tokens=max_tokens)

    def check_token_ids(
        self, prepared: engines.PreparedTask, token_ids: Sequence[TokenIds]
    ) -> None:
        """Raise BadRequestError unless the model can take these ids."""
        check_token_ids(_own(prepared), token_ids)

    def switch_(self, prepared: engines.PreparedTask) -> float:
        """Put the task's weights in place."""
        if prepared.name is None and self._live.current is None:
            return 0.0
        return self._live.switch_(_own(prepared))

    def run(
        self, prepared: engines.PreparedTask, token_ids: Sequence[TokenIds]
    ) -> NDArray[np.float32]:
        """Probabilities or vectors of the task in place."""
        rows: NDArray[np.float32] = self._live.run(_own(prepared), token_ids).numpy()
        return rows

    def recover_(self) -> bool:
        """Revert to the base and compare its hash with the one at load."""
        return self._live.verify()

    @property
    def _store(self) -> Store:
        return self._both()[0]

    @property
    def _live(self) -> LiveBase:
        return self._both()[1]

    def _both(self) -> tuple[Store, LiveBase]:
        if self._opened is None:
            raise NotReadyError("the engine is not open")
        return self._opened


def _own(prepared: engines.PreparedTask) -> PreparedTask:
    if not isinstance(prepared, PreparedTask):
        raise TypeError(f"expected a task that this engine prepared, got {type(prepared)!r}")
    return prepared


def _check_kind(store: Store, task: str | None) -> None:
    """Refuse a language model by its configuration, before any of its weights is decoded."""
    config = store.base.config if task is None else store.task(task).config
    if is_causal_lm(config):
        what = f"the base {store.base_name!r}" if task is None else f"task {task!r}"
        raise UnsupportedTaskError(
            f"{what} is a {config['architectures'][0]}, which generates text; "
            "the torch engine serves classifiers and embeddings"
        )


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise EngineFailedError(f"the device {device!r} cannot be used: {reason}") from error


def _catalog(store: Store) -> Catalog:
    tasks = {name: _info(store, name) for name in store.tasks}
    return Catalog(store.base_name, store.generation, tasks)


def _info(store: Store, name: str) -> TaskInfo:
    try:
        task = store.task(name)
        details = {key: task.meta[key] for key in DETAILS if key in task.meta}
        return TaskInfo(
            name,
            task.content_hash,
            task.nbytes,
            _unix_seconds(task.created),
            {**details, "dtype": task.dtype},
        )
    except NpsError:
        # Listed, so that a request learns why it cannot be had; tried anew at every generation.
        return TaskInfo(name, f"unreadable at generation {store.generation}", 0)


def _unix_seconds(created: str) -> int:
    try:
        return int(datetime.datetime.fromisoformat(created).timestamp())
    except ValueError:
        return 0
