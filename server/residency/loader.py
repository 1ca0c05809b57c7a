"""Loading tasks: room first, then the engine on another thread, then the outcome on the shelf."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from formats.errors import ChecksumMismatchError, NpsError
from formats.errors import TaskNotFoundError as ContainerTaskNotFoundError
from nps_store.errors import TaskNotFoundError, UnsupportedTaskError
from server.errors import ModelNotFoundError, NotReadyError
from server.residency.resident import Resident, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from server.engines import Engine, PreparedTask
    from server.metrics import Metrics
    from server.residency.shelf import Shelf

logger = logging.getLogger(__name__)

_TASK_GONE = (TaskNotFoundError, ContainerTaskNotFoundError)  # removed since the last refresh


class Loader:
    """Brings versions onto a shelf.

    Args:
        engine: Reads, verifies and decodes.
        shelf: Where they go.
        executor: Where the engine runs.
        metrics: Where loads are counted.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        shelf: Shelf,
        executor: Executor,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._shelf = shelf
        self._executor = executor
        self._metrics = metrics
        self._clock = clock
        self._known_nbytes: dict[str, int] = {}  # resident bytes by content hash, once loaded

    def start(self, task: str | None) -> Resident:
        """Put a loading version of `task` onto the shelf. Raises ModelNotFoundError."""
        info = None if task is None else self._shelf.catalog.tasks.get(task)
        if task is not None and info is None:
            raise ModelNotFoundError.of(task, self._shelf.catalog.tasks)
        resident = Resident(task, info.content_hash if info else "")
        resident.move(State.LOADING)
        self._shelf.current[task] = resident
        resident.loading = asyncio.get_running_loop().create_task(self._load(resident))
        return resident

    async def _load(self, resident: Resident) -> None:
        """Load and settle; never raises, since nobody may be waiting any more."""
        try:
            resident.is_copy = self._copy_is_free(resident)
            try:
                prepared = await self._prepare(resident)
            except UnsupportedTaskError:
                # What cannot share the body (a grown vocabulary) may still have one of its own.
                if resident.is_copy or not self._shelf.budget.copies:
                    raise
                resident.is_copy = True
                prepared = await self._prepare(resident)
            self._settle(resident, prepared)
        except (NotReadyError, *_TASK_GONE) as error:
            self._give_up(resident, error)
        except NpsError as error:
            self._fail(resident, error)
        except Exception as error:  # noqa: BLE001 - a failed load ends nothing but itself
            self._give_up(resident, error)
        finally:
            resident.loading = None
            self._shelf.changed()

    async def _prepare(self, resident: Resident) -> PreparedTask:
        await self._reserve(resident)
        began = self._clock()
        prepared = await asyncio.get_running_loop().run_in_executor(
            self._executor, partial(self._engine.prepare, resident.task, copy=resident.is_copy)
        )
        self._metrics.observe_load(self._clock() - began, prepared.nbytes)
        return prepared

    def _copy_is_free(self, resident: Resident) -> bool:
        """Whether a copy of the body fits without anybody leaving."""
        free = self._shelf.budget.nbytes - self._shelf.used_nbytes
        wanted = self._shelf.budget.copies and resident.task is not None
        return wanted and self._engine.base_nbytes <= free

    async def _reserve(self, resident: Resident) -> None:
        """Claim bytes for a load, evicting and then waiting for room.

        Raises:
            ResidencyConflictError: The task alone exceeds the budget.
            NotReadyError: Every byte stayed busy for as long as a request may wait.
        """
        if resident.task is None:
            return
        name = resident.task
        resident.nbytes = 0
        need = self._engine.base_nbytes if resident.is_copy else self._estimate(resident)
        self._shelf.budget.check(name, need)
        deadline = self._clock() + self._shelf.budget.wait_s
        while not self._shelf.make_room(need):
            self._shelf.freed.clear()
            try:
                await asyncio.wait_for(self._shelf.freed.wait(), deadline - self._clock())
            except TimeoutError as error:
                raise NotReadyError(
                    f"no room to load task {name!r}: {self._shelf.used_nbytes} of the memory "
                    f"budget's {self._shelf.budget.nbytes} bytes are pinned or busy; try again"
                ) from error
        resident.nbytes = need

    def _estimate(self, resident: Resident) -> int:
        info = self._shelf.catalog.tasks.get(resident.task or "")
        return self._known_nbytes.get(resident.content_hash, info.nbytes if info else 0)

    def _settle(self, resident: Resident, prepared: PreparedTask) -> None:
        if resident.task is not None and not resident.is_copy:
            self._known_nbytes[prepared.content_hash] = prepared.nbytes
            self._shelf.budget.check(resident.task, prepared.nbytes)
        resident.become_ready(prepared)
        if not self._shelf.is_current(resident):
            self._shelf.retire(resident)
        self._shelf.make_room(0)  # the estimate may have been too low

    def _fail(self, resident: Resident, error: Exception) -> None:
        if not self._shelf.is_current(resident):
            self._shelf.forget(resident)  # the store has moved on: the reason says nothing of now
            return
        logger.error("task %r is refused from now on", resident.task, exc_info=error)
        resident.fail(error)
        if isinstance(error, ChecksumMismatchError):
            self._metrics.checksum_failures.inc()

    def _give_up(self, resident: Resident, error: Exception) -> None:
        """Let this load's waiters fail and the next request try again."""
        logger.warning("task %r could not be loaded now", resident.task, exc_info=error)
        resident.remember(error)
        self._shelf.forget(resident)

    def forget_sizes(self) -> None:
        """Drop the known sizes of content that the store no longer holds."""
        hashes = {info.content_hash for info in self._shelf.catalog.tasks.values()}
        self._known_nbytes = {h: n for h, n in self._known_nbytes.items() if h in hashes}
