"""The tasks that one API server process offers: those of the store, as they come and go.

Every API server process follows the store's file by itself. What operators decide beyond that
(a task withdrawn, a task pinned) is kept by the workers, which all of them ask.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nps_store.errors import UnsupportedTaskError
from server.engines.vllm.contents import TaskContent
from server.engines.vllm.fit import check_fit
from server.engines.vllm.routing import route_to
from server.engines.vllm.workers import TaskState, Workers, WorkersView
from server.errors import ModelNotFoundError, TaskQuarantinedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vllm.engine.protocol import EngineClient
    from vllm.lora.request import LoRARequest

    from formats.errors import NpsError
    from nps_store.store import Store

logger = logging.getLogger(__name__)

_POLL_S = 0.01


class ServedTasks:
    """Which tasks requests may name now, and what each name means.

    A request gets the content that its name means when it reaches the engine, and keeps it. A
    content that is replaced, removed or withdrawn takes no new requests, and is released when the
    last one is over.

    Attributes:
        store: What this process last saw of the file.
        workers: Of the engine.
        n_in_flight: Requests by content.
    """

    def __init__(self, engine: EngineClient, store: Store, routes: dict[str, LoRARequest]) -> None:
        """Nothing is offered until `sync`.

        Args:
            engine: vLLM's.
            store: The store.
            routes: What vLLM's server takes for its adapters, by name; kept up to date.
        """
        self.store = store
        self.n_in_flight: Counter[TaskContent] = Counter()
        self.workers = Workers(engine)
        self._routes = routes
        self._now: dict[str, TaskContent] = {}
        self._draining: set[TaskContent] = set()
        self._unfit: dict[TaskContent, NpsError] = {}
        self._view = WorkersView(frozenset(), {})
        self._lock, self._look = asyncio.Lock(), asyncio.Lock()

    async def sync(self) -> bool:
        """Look at the file and at the workers; returns True if tasks came or went."""
        async with self._lock:
            await asyncio.to_thread(self.store.refresh)
            self._view = await self.workers.view()
            names = [name for name in self.store.tasks if name not in self._view.withdrawn]
            wanted = {name: TaskContent(name, str(self.store.content_hash(name))) for name in names}
            gone = [content for name, content in self._now.items() if wanted.get(name) != content]
            new = [content for content in wanted.values() if content not in self._now.values()]
            for content in new:
                await self._offer(content)
            for content in gone:
                self._stop_offering(content)
            if new:
                self._view = await self.workers.view()
            await self._release_drained()
        return bool(new or gone)

    async def settled(self, content: TaskContent) -> TaskState:
        """What has become of an offered or draining content, once it is not loading any more."""
        while self.state(content).state == "loading":
            async with self._look:  # one asks, however many wait
                if self.state(content).state == "loading":
                    await asyncio.sleep(_POLL_S)
                    self._view = await self.workers.view()
        return self.state(content)

    async def add(self, name: str) -> TaskState:
        """Offer a task of the store in all processes; a failed or withdrawn one again.

        Raises:
            ModelNotFoundError: The store has none of that name.
            NpsError: It cannot be served (says why).
        """
        await self.workers.withdraw(name, is_withdrawn=False)
        await self.sync()
        content = self.content(name)
        if self.state(content).error is not None and content not in self._unfit:
            await self.workers.hold(content)  # which tries again what failed
            await self.workers.release(content)
            self._view = await self.workers.view()
        state = await self.settled(content)
        if state.error is not None:
            raise state.error
        return state

    async def remove(self, name: str) -> None:
        """Offer a task no more, in any process; the store stays as it is.

        Raises:
            ModelNotFoundError: It is not offered.
        """
        self.content(name)
        await self.workers.withdraw(name, is_withdrawn=True)
        await self.sync()

    async def pin(self, name: str, *, is_pinned: bool) -> TaskState:
        """Have a task in memory and keep it there, or no longer.

        Raises:
            ModelNotFoundError: It is not offered.
            NpsError: It cannot be served (says why).
        """
        state = await self.settled(self.content(name))
        if state.error is not None:
            raise state.error
        await self.workers.pin(state.content, is_pinned=is_pinned)
        self._view = await self.workers.view()
        return self.state(state.content)

    def state(self, content: TaskContent) -> TaskState:
        """What is known of an offered or draining content."""
        if content in self._unfit:
            return TaskState(content, "failed", 0, is_pinned=False, error=self._unfit[content])
        known = self._view.states.get(content)
        return known or TaskState(content, "loading", 0, is_pinned=False, error=None)

    @property
    def withdrawn(self) -> list[str]:
        """Names of tasks that the store has and nobody shall be served."""
        return sorted(self._view.withdrawn & set(self.store.tasks))

    @property
    def offered(self) -> list[TaskContent]:
        """By name."""
        return [self._now[name] for name in sorted(self._now)]

    @property
    def draining(self) -> list[TaskContent]:
        """Those that take no new requests and still have some."""
        return sorted(self._draining)

    def content(self, name: str) -> TaskContent:
        """What a name means now.

        Raises:
            ModelNotFoundError: Nothing.
        """
        if name not in self._now:
            raise ModelNotFoundError(f"the model {name!r} does not exist")
        return self._now[name]

    def check(self, name: str) -> None:
        """Raise what a request for this name would end with, as far as it is known."""
        if (error := self.state(self.content(name)).error) is not None:
            raise error

    @asynccontextmanager
    async def request(self, name: str) -> AsyncIterator[TaskContent]:
        """Have the content that a name means now for as long as a request needs it.

        Raises:
            ModelNotFoundError: It means none any more.
            NpsError: The task cannot be served (says why).
        """
        content = self.content(name)
        self.n_in_flight[content] += 1
        try:
            state = await self.settled(content)
            if state.error is not None:
                raise state.error
            yield content
        finally:
            self.n_in_flight[content] -= 1
            if not self.n_in_flight[content]:
                del self.n_in_flight[content]

    async def _offer(self, content: TaskContent) -> None:
        """Have requests find a task, be it to learn why it cannot be served."""
        try:
            await asyncio.to_thread(check_fit, self.store, content.name)
            if content in self._draining:
                self._draining.discard(content)
            else:
                await self.workers.hold(content)
        except UnsupportedTaskError as error:
            self._unfit[content] = error
        except Exception as error:  # noqa: BLE001 - whatever it is, the other tasks are served
            self._unfit[content] = TaskQuarantinedError(
                f"task {content.name!r} cannot be served: {error}"
            )
        if content in self._unfit:
            logger.warning("%s", self._unfit[content])
        self._now[content.name] = content
        self._routes[content.name] = route_to(content)

    def _stop_offering(self, content: TaskContent) -> None:
        if self._now.get(content.name) == content:
            del self._now[content.name], self._routes[content.name]
        if self._unfit.pop(content, None) is None:
            self._draining.add(content)

    async def _release_drained(self) -> None:
        """Let the workers forget contents that nobody needs."""
        for content in [c for c in self._draining if not self.n_in_flight[c]]:
            self._draining.discard(content)
            await self.workers.release(content)
