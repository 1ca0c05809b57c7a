"""A user's own model, made any task of a store on demand."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from nps_store.alignment import align
from nps_store.checkpoint import DTYPES, tensor_hash
from nps_store.errors import BaseMismatchError, UnsupportedTaskError
from nps_store.switch.in_place import InPlace
from nps_store.switch.patch import Replace
from nps_store.switch.resident import ResidentTask
from nps_store.switch.targets import Targets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from torch import Tensor, nn

    from nps_store.store import Change, Store
    from nps_store.switch.patch import Patch
    from nps_store.task import Task

DEFAULT_MAX_NBYTES = 1 << 30


@dataclass(frozen=True)
class SwitchStatistics:
    """What a switcher did since it was made.

    Attributes:
        n_switches: Switches that changed weights.
        n_hits: Of these, those to a task that was prepared already (or to the base).
        n_prepared: Tasks read and decoded, some of them again.
        n_evicted: Prepared tasks given up for room.
        prepared_nbytes: Resident bytes of all prepared tasks now.
        copies_nbytes: Bytes of the base's values kept for tensors that a task changes densely: it
            is restored from them, which is faster than from a log of a large part of it.
        decode_s: Seconds of reading, verifying and decoding.
        pack_s: Seconds of packing and moving to the device.
        wait_s: Seconds that switches waited for a preparation.
        revert_s: Seconds of switches to the base.
        switch_s: Seconds of switches to a task: the revert of the one before and the apply are one
            pass.
    """

    n_switches: int = 0
    n_hits: int = 0
    n_prepared: int = 0
    n_evicted: int = 0
    prepared_nbytes: int = 0
    copies_nbytes: int = 0
    decode_s: float = 0.0
    pack_s: float = 0.0
    wait_s: float = 0.0
    revert_s: float = 0.0
    switch_s: float = 0.0


@dataclass(frozen=True, eq=False)
class _Prepared:
    name: str
    resident: ResidentTask


class TaskSwitcher:
    """Puts the tasks of a store into one live model, in place; a context manager.

    The model holds the base's weights, under the base's names or with a prefix. Its tensors must
    stay where they are. On leaving, the base is in place again, bit for bit.

    Thread-safe. Whoever runs the model while other threads may switch does so within `using`.

    Attributes:
        model: The model.
        store: The store; a `refresh` of it makes prepared tasks stale.
    """

    def __init__(
        self, model: nn.Module, store: Store, *, max_nbytes: int = DEFAULT_MAX_NBYTES
    ) -> None:
        """Find the base's tensors in the model and check that they are the base's.

        Args:
            model: A model on one device.
            store: Where the tasks are.
            max_nbytes: Of prepared tasks kept for later; the one in place is kept in any case.

        Raises:
            BaseMismatchError: A tensor of the model is not the base's (names the first).
        """
        self.model = model
        self.store = store
        self._tensors = dict(model.state_dict(keep_vars=False))
        self._names = _identified(self._tensors, store)
        self._device = next(iter(self._tensors.values())).device
        self._targets = Targets(self._tensors.values())
        self._in_place: InPlace[_Prepared] = InPlace(self._device)
        self._max_nbytes = max_nbytes
        self._prepared: OrderedDict[str, Future[_Prepared]] = OrderedDict()
        self._generation = store.generation
        self._statistics = SwitchStatistics()
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="nps-prepare")

    @property
    def current(self) -> str | None:
        """The task in place; None for the base.

        Raises:
            WeightsUnsettledError: A failed switch could not be reverted.
        """
        current = self._in_place.current
        return None if current is None else current.name

    @property
    def statistics(self) -> SwitchStatistics:
        """Counts and seconds so far."""
        with self._lock:
            held = sum(each.resident.nbytes for each in self._ready())
            copies = self._in_place.copies_nbytes
            return replace(self._statistics, prepared_nbytes=held, copies_nbytes=copies)

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
        if name is None:
            seconds = self._in_place.to_(None, None)
            self._count(n_switches=1, n_hits=1, revert_s=seconds)
            return seconds
        future, is_hit = self._future(name)
        start = time.perf_counter()
        prepared = future.result()
        waited = time.perf_counter() - start
        if self._in_place.has(prepared):
            return 0.0
        seconds = self._in_place.to_(prepared, prepared.resident)
        self._count(n_switches=1, n_hits=int(is_hit), wait_s=waited, switch_s=seconds)
        self._evict()
        return seconds

    @contextmanager
    def using(self, name: str | None) -> Iterator[nn.Module]:
        """The model with a task in place, which stays there until the block is left.

        Other threads' switches wait for that long. The task stays in place afterwards, until
        another is wanted.
        """
        while True:
            self.switch_(name)
            with self._in_place.hold() as current:
                if (
                    None if current is None else current.name
                ) == name:  # else another thread was faster
                    yield self.model
                    return

    def prefetch(self, *names: str) -> None:
        """Prepare tasks on another thread; errors are told when they are switched to."""
        for name in names:
            self._future(name)

    def close(self) -> None:
        """Revert to the base and end the thread."""
        self._worker.shutdown(cancel_futures=True)
        self._in_place.to_(None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _future(self, name: str) -> tuple[Future[_Prepared], bool]:
        """The prepared task, now or soon, and whether it is there."""
        with self._lock:
            if self._generation != self.store.generation:
                self._prepared.clear()
                self._generation = self.store.generation
            future = self._prepared.get(name)
            if future is None or (future.done() and (future.cancelled() or future.exception())):
                future = self._prepared[name] = self._worker.submit(self._prepare, name)
                return future, False
            self._prepared.move_to_end(name)
            return future, future.done()

    def _prepare(self, name: str) -> _Prepared:
        start = time.perf_counter()
        task = self.store.task(name)
        floating = {t.dtype for t in self._tensors.values() if t.is_floating_point()}
        if DTYPES[task.dtype] not in floating:
            raise UnsupportedTaskError(
                f"task {name!r} was compressed for {task.dtype}, which the model is not in"
            )
        changes = list(self.store.changes(name))
        decoded = time.perf_counter()
        resident = ResidentTask(self._targets, self._pairs(task, changes))
        self._count(n_prepared=1, decode_s=decoded - start, pack_s=time.perf_counter() - decoded)
        self._evict()
        return _Prepared(name, resident)

    def _pairs(self, task: Task, changes: list[Change]) -> Iterator[tuple[Tensor, Patch]]:
        """Live tensors and what the task does to each, once; a tied one has several names."""
        placed: dict[int, list[tuple[Tensor, Change]]] = {}
        for change in (*self.store.unchanged(task.name), *changes):
            tensor = self._live(change)
            if tensor is not None:
                placed.setdefault(tensor.data_ptr(), []).append((tensor, change))
            elif change.patch is not None or change.rows is not None:
                raise UnsupportedTaskError(
                    f"task {task.name!r} has a tensor {change.name!r}, which the model lacks "
                    "or has in another shape"
                )
        for group in placed.values():
            tensor, change = group[-1]
            if tensor.numel() and not self._are_equal(task, [change for _, change in group]):
                raise UnsupportedTaskError(
                    f"task {task.name!r} has other values in {change.name!r} than in "
                    f"{group[0][1].name!r}; the model holds them as one tensor"
                )
            if change.patch is not None:
                yield tensor, change.patch

    def _live(self, change: Change) -> Tensor | None:
        """The tensor of the model that a change is for, if it has one of that shape."""
        name = change.name if change.base is None else self._names.get(change.base, change.name)
        tensor: Tensor | None = self._tensors.get(name)
        if tensor is None or change.rows is not None:
            return None
        if change.base is None and isinstance(change.patch, Replace):
            return tensor if change.patch.values.shape == tensor.shape else None
        return tensor

    def _are_equal(self, task: Task, changes: list[Change]) -> bool:
        if len(changes) == 1:
            return True
        hashes = {tensor_hash(self.store.resolve(c, task.directory)) for c in changes}
        return len(hashes) == 1

    def _ready(self) -> list[_Prepared]:
        """Prepared tasks, the longest unused first."""
        return [
            future.result()
            for future in self._prepared.values()
            if future.done() and not future.cancelled() and not future.exception()
        ]

    def _evict(self) -> None:
        with self._lock:
            ready = self._ready()
            held = sum(each.resident.nbytes for each in ready)
            for each in ready[:-1]:
                if held > self._max_nbytes and not self._in_place.has(each):
                    del self._prepared[each.name]
                    held -= each.resident.nbytes
                    n_evicted = self._statistics.n_evicted + 1
                    self._statistics = replace(self._statistics, n_evicted=n_evicted)

    def _count(self, **more: float) -> None:
        with self._lock:
            values = {name: getattr(self._statistics, name) + by for name, by in more.items()}
            self._statistics = replace(self._statistics, **values)


class _Shapes:
    """The tensor table of a state dict."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self.names = tuple(sorted(tensors))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)


def _identified(tensors: Mapping[str, Tensor], store: Store) -> dict[str, str]:
    """Where each tensor of the base is in the model; they are bit-identical."""
    aligned = align(_Shapes(tensors), store.base)
    names = dict(aligned.shared)
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
