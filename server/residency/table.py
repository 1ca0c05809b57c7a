"""The table of resident tasks: leases, single-flight loads and the sync with the store.

Everything here runs on the event loop's thread, so a state changes only between awaits and needs
no lock. Loads run on a loader thread and report back to the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING

from formats.errors import ChecksumMismatchError, NpsError
from formats.errors import TaskNotFoundError as ContainerTaskNotFoundError
from nps_store.errors import TaskNotFoundError, UnsupportedTaskError
from server.errors import (
    EngineFailedError,
    ModelNotFoundError,
    NotReadyError,
    ResidencyConflictError,
    TaskQuarantinedError,
)
from server.residency.resident import Resident, State
from server.residency.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from concurrent.futures import Executor

    from server.engines import Catalog, Engine, PreparedTask
    from server.metrics import Metrics
    from server.residency.budget import Budget

_MAX_ATTEMPTS = 3
_REFUSALS = (UnsupportedTaskError, ResidencyConflictError)  # sound content, not servable here
_TASK_GONE = (TaskNotFoundError, ContainerTaskNotFoundError)  # removed since the last refresh


class ResidencyTable:
    """Which version of which task is in memory.

    Args:
        engine: Loads tasks.
        catalog: The store's content now; `sync` brings newer ones.
        budget: Bytes that tasks may occupy, and whether copies of the body are wanted.
        loader: Where loads run.
        metrics: Where loads, hits and evictions are counted.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        catalog: Catalog,
        budget: Budget,
        loader: Executor,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.catalog = catalog
        self.budget = budget
        self._engine = engine
        self._loader = loader
        self._metrics = metrics
        self._clock = clock
        self._shelf = Shelf(budget)
        self._known_nbytes: dict[str, int] = {}  # resident bytes by content hash, once loaded
        self._freed = asyncio.Event()

    # ------------------------------------------------------------------ requests

    def resolve(self, model: str | None) -> str | None:
        """The task that clients mean by `model`; None is the base. Raises ModelNotFoundError."""
        if model is None or model in self.catalog.tasks:
            return model
        if model == self.catalog.base:
            return None
        raise ModelNotFoundError(f"the model {model!r} does not exist")

    @contextlib.asynccontextmanager
    async def lease(self, task: str | None) -> AsyncIterator[Resident]:
        """Hold the current version of `task`, loading it first where it is absent.

        Whoever holds a lease keeps that very version, even if the store replaces the task.

        Raises:
            ModelNotFoundError: No such task.
            TaskQuarantinedError: Its content is damaged.
            NotReadyError: No room in the budget in time.
            NpsError: The engine cannot serve it.
        """
        resident = await self._acquire(task)
        try:
            yield resident
        finally:
            self._release(resident)

    async def _acquire(self, task: str | None) -> Resident:
        self._metrics.count_lookup(hit=self.state(task) is State.READY)
        for _ in range(_MAX_ATTEMPTS):  # more than one only if it is replaced while it loads
            resident = self._shelf.current.get(task) or self._start_load(task)
            resident.n_leases += 1  # a claim: from here on it cannot be evicted
            resident.used_at = self._clock()
            try:
                if resident.loading is not None:
                    await asyncio.shield(resident.loading)  # a client that goes ends no load
            except asyncio.CancelledError:
                self._release(resident)
                raise
            if resident.state is State.READY:
                return resident
            self._release(resident)
            if resident.error is not None:
                raise self._refusal(resident, resident.error)
        raise NotReadyError(f"task {task!r} keeps being replaced in the store; try again")

    def _release(self, resident: Resident) -> None:
        self._shelf.release(resident)
        self._changed()

    def _refusal(self, resident: Resident, error: Exception) -> NpsError:
        name = self.catalog.model_name(resident.task)
        if resident.state is State.FAILED and not isinstance(error, _REFUSALS):
            return TaskQuarantinedError(
                f"task {name!r} is quarantined: {error}; replace it in the store or reload it"
            )
        if isinstance(error, NpsError):
            return error
        return EngineFailedError(f"task {name!r} could not be loaded: {error!r}; try again")

    # ------------------------------------------------------------------ loading

    def _start_load(self, task: str | None) -> Resident:
        info = None if task is None else self.catalog.tasks.get(task)
        if task is not None and info is None:
            raise ModelNotFoundError(f"the model {task!r} does not exist")
        resident = Resident(task, info.content_hash if info else "")
        resident.move(State.LOADING)
        self._shelf.current[task] = resident
        resident.loading = asyncio.get_running_loop().create_task(self._load(resident))
        return resident

    async def _load(self, resident: Resident) -> None:
        """Load and settle; never raises, since nobody may be waiting any more."""
        try:
            await self._reserve(resident)
            began = self._clock()
            prepared = await asyncio.get_running_loop().run_in_executor(
                self._loader,
                partial(self._engine.prepare, resident.task, copy=resident.is_copy),
            )
            self._metrics.observe_load(self._clock() - began, prepared.nbytes)
            self._settle(resident, prepared)
        except (NotReadyError, *_TASK_GONE) as error:
            self._give_up(resident, error)
        except NpsError as error:
            self._fail(resident, error)
        except Exception as error:  # noqa: BLE001 - a failed load ends nothing but itself
            self._give_up(resident, error)
        finally:
            resident.loading = None
            self._changed()

    async def _reserve(self, resident: Resident) -> None:
        """Claim bytes for a load, evicting and then waiting for room.

        Raises:
            ResidencyConflictError: The task alone exceeds the budget.
            NotReadyError: Every byte stayed busy for as long as a request may wait.
        """
        if resident.task is None:
            return
        name = resident.task
        free = self.budget.nbytes - self.used_nbytes
        resident.is_copy = self.budget.copies and self._engine.base_nbytes <= free
        need = self._engine.base_nbytes if resident.is_copy else self._estimate(resident)
        self.budget.check(name, need)
        deadline = self._clock() + self.budget.wait_s
        while not self._make_room(need):
            self._freed.clear()
            try:
                await asyncio.wait_for(self._freed.wait(), deadline - self._clock())
            except TimeoutError as error:
                raise NotReadyError(
                    f"no room to load task {name!r}: {self.used_nbytes} of the memory budget's "
                    f"{self.budget.nbytes} bytes are pinned or busy; try again"
                ) from error
        resident.nbytes = need

    def _estimate(self, resident: Resident) -> int:
        info = self.catalog.tasks.get(resident.task or "")
        return self._known_nbytes.get(resident.content_hash, info.nbytes if info else 0)

    def _settle(self, resident: Resident, prepared: PreparedTask) -> None:
        if resident.task is not None:
            if not resident.is_copy:
                self._known_nbytes[prepared.content_hash] = prepared.nbytes
            self.budget.check(resident.task, prepared.nbytes)
        resident.become_ready(prepared)
        if not self._is_current(resident):
            self._shelf.retire(resident)
        self._make_room(0)  # the estimate may have been too low

    def _fail(self, resident: Resident, error: Exception) -> None:
        if not self._is_current(resident):  # the store has moved on: the reason says nothing of now
            self._shelf.forget(resident)
            return
        resident.fail(error)
        if isinstance(error, ChecksumMismatchError):
            self._metrics.checksum_failures.inc()

    def _give_up(self, resident: Resident, error: Exception) -> None:
        """Let this load's waiters fail and the next request try again."""
        resident.error = error
        self._shelf.forget(resident)

    def _make_room(self, need: int) -> bool:
        fits, n_evicted = self._shelf.make_room(need)
        self._metrics.evictions.inc(n_evicted)
        return fits

    def _is_current(self, resident: Resident) -> bool:
        if resident.task is None:
            return True
        info = self.catalog.tasks.get(resident.task)
        return info is not None and info.content_hash == resident.content_hash

    # ------------------------------------------------------------------ store and operator

    def sync(self, catalog: Catalog) -> None:
        """Take over a newer generation: replaced tasks drain, quarantines of old content end."""
        self.catalog = catalog
        for task, resident in list(self._shelf.current.items()):
            if not self._is_current(resident):
                self._shelf.leave(task)
        hashes = {info.content_hash for info in catalog.tasks.values()}
        self._known_nbytes = {h: n for h, n in self._known_nbytes.items() if h in hashes}
        self._shelf.pinned &= {None, *catalog.tasks}
        for task in self._shelf.pinned - self._shelf.current.keys():
            self._start_load(task)
        self._changed()

    def quarantine(self, resident: Resident, error: Exception) -> None:
        """A loaded version turned out to be unusable: requests for it fail until it changes."""
        if resident.state is State.READY:
            resident.fail(error)
            self._changed()

    async def pin(self, task: str | None) -> None:
        """Load `task` and keep it. Raises ResidencyConflictError if pins exceed the budget."""
        async with self.lease(task) as resident:
            pinned = self._shelf.pinned | {task}
            nbytes = sum(r.nbytes for r in self._shelf.current.values() if r.task in pinned)
            if nbytes > self.budget.nbytes:
                raise ResidencyConflictError(
                    f"pinning {self.catalog.model_name(task)!r} ({resident.nbytes} bytes) would "
                    f"take the pinned tasks to {nbytes} bytes: the memory budget is "
                    f"{self.budget.nbytes}"
                )
            self._shelf.pinned = pinned

    def unpin(self, task: str | None) -> None:
        """Let the budget evict `task` again; the base always stays."""
        if task is not None:
            self._shelf.pinned.discard(task)
            self._changed()

    def evict(self, task: str | None) -> None:
        """Let `task` leave memory, or end its quarantine. Raises ResidencyConflictError if pinned.

        Requests that hold it finish first; a load that runs goes on.
        """
        if task in self._shelf.pinned:
            raise ResidencyConflictError(
                f"{self.catalog.model_name(task)!r} is pinned; unpin it first"
            )
        self._shelf.leave(task)
        self._changed()

    async def reload(self, task: str | None) -> None:
        """Read `task` from the store again, whatever state it is in."""
        self._shelf.leave(task)
        async with self.lease(task):
            pass

    async def close(self) -> None:
        """End the loads that still wait and let go of everything."""
        loads = [resident.loading for resident in self if resident.loading is not None]
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        self._shelf.clear()

    # ------------------------------------------------------------------ views

    def __iter__(self) -> Iterator[Resident]:
        """Every version that is not absent, the current ones first."""
        return iter(self._shelf)

    def state(self, task: str | None) -> State:
        """The state of the current version."""
        resident = self._shelf.current.get(task)
        return State.ABSENT if resident is None else resident.state

    def is_pinned(self, task: str | None) -> bool:
        """Whether the budget must leave `task` alone."""
        return task in self._shelf.pinned

    @property
    def used_nbytes(self) -> int:
        """Bytes that tasks occupy, those being loaded by their estimate."""
        return self._shelf.used_nbytes

    def _changed(self) -> None:
        self._freed.set()
        self._metrics.cache_bytes.set(self._shelf.used_nbytes)
        self._metrics.tasks_ready.set(self._shelf.n_ready)
