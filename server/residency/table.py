"""The table of resident tasks: leases for requests, the sync with the store, and what operators do.

Everything in this package runs on the event loop's thread, so a state changes only between awaits
and needs no lock; only the engine's part of a load runs elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from formats.errors import NpsError
from nps_store.errors import UnsupportedTaskError
from server.errors import (
    EngineFailedError,
    ModelNotFoundError,
    NotReadyError,
    ResidencyConflictError,
    TaskQuarantinedError,
)
from server.residency.loader import Loader
from server.residency.resident import Resident, State
from server.residency.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from concurrent.futures import Executor

    from server.engines import Catalog, Engine
    from server.metrics import Metrics
    from server.residency.budget import Budget

_MAX_ATTEMPTS = 3
_REFUSALS = (UnsupportedTaskError, ResidencyConflictError)  # sound content, not servable here


class ResidencyTable:
    """Which version of which task is in memory.

    Args:
        engine: Loads tasks.
        catalog: The store's content now; `sync` brings newer ones.
        budget: Bytes that tasks may occupy, and whether copies of the body are wanted.
        executor: Where loads run.
        metrics: Where loads, hits and evictions are counted.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        catalog: Catalog,
        budget: Budget,
        executor: Executor,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = budget
        self._metrics = metrics
        self._clock = clock
        self._shelf = Shelf(catalog=catalog, budget=budget, metrics=metrics)
        self._loader = Loader(
            engine, shelf=self._shelf, executor=executor, metrics=metrics, clock=clock
        )

    # ------------------------------------------------------------------ requests

    def resolve(self, model: str | None) -> str | None:
        """The task that clients mean by `model`; None is the base. Raises ModelNotFoundError."""
        if model is None or model in self.catalog.tasks:
            return model
        if model == self.catalog.base:
            return None
        raise ModelNotFoundError.of(model, self.catalog.tasks)

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
            self._shelf.release(resident)

    async def _acquire(self, task: str | None) -> Resident:
        self._metrics.count_lookup(hit=self.state(task) is State.READY)
        for _ in range(_MAX_ATTEMPTS):  # more than one only if it is replaced while it loads
            resident = self._shelf.current.get(task) or self._loader.start(task)
            resident.n_leases += 1  # a claim: from here on it cannot be evicted
            resident.used_at = self._clock()
            try:
                if resident.loading is not None:
                    await asyncio.shield(resident.loading)  # a client that goes ends no load
            except asyncio.CancelledError:
                self._shelf.release(resident)
                raise
            if resident.state is State.READY:
                return resident
            self._shelf.release(resident)
            if resident.error is not None:
                raise self._refusal(resident, resident.error).with_traceback(None)
        raise NotReadyError(f"task {task!r} keeps being replaced in the store; try again")

    def _refusal(self, resident: Resident, error: Exception) -> NpsError:
        name = self.catalog.model_name(resident.task)
        is_quarantined = resident.state is State.FAILED and not isinstance(error, _REFUSALS)
        if is_quarantined and resident.task is not None:
            return TaskQuarantinedError(
                f"task {name!r} is quarantined: {error}; replace it in the store or reload it"
            )
        if isinstance(error, NpsError):
            return error
        return EngineFailedError(f"task {name!r} could not be loaded: {error!r}; try again")

    # ------------------------------------------------------------------ store and operator

    def sync(self, catalog: Catalog) -> None:
        """Take over a newer generation: replaced tasks drain and quarantines end.

        Every quarantine ends, since damage is mended by writing the same content again; what is
        still damaged is found out by the next request for it.
        """
        self._shelf.catalog = catalog
        for task, resident in list(self._shelf.current.items()):
            if not self._shelf.is_current(resident) or resident.state is State.FAILED:
                self._shelf.leave(task)
        self._loader.forget_sizes()
        self._shelf.pinned &= {None, *catalog.tasks}
        for task in self._shelf.pinned - self._shelf.current.keys():
            self._loader.start(task)
        self._shelf.changed()

    def quarantine(self, resident: Resident, error: Exception) -> None:
        """A loaded version turned out to be unusable: requests for it fail until it changes."""
        if resident.state is State.READY:
            resident.fail(error)
            self._shelf.changed()

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
            self._shelf.changed()

    def evict(self, task: str | None) -> None:
        """Let `task` leave memory, or end its quarantine. Raises ResidencyConflictError if pinned.

        Requests that hold it finish first; a load that runs goes on.
        """
        if task in self._shelf.pinned:
            raise ResidencyConflictError(
                f"{self.catalog.model_name(task)!r} is pinned; unpin it first"
            )
        self._shelf.leave(task)
        self._shelf.changed()

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

    @property
    def catalog(self) -> Catalog:
        """The store's content as far as it is known."""
        return self._shelf.catalog

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
