"""The scheduler's waiting requests, in a queue of their own for each task."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING

from vllm.v1.core.sched.request_queue import RequestQueue

from server.engines.vllm.routing import task_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from vllm.v1.request import Request

    from server.engines.vllm.contents import TaskContent


class QueueByTask(RequestQueue):
    """As vLLM's scheduler knows a queue. Within `only` it is that of one task; what is put in then
    finds its place all the same. Nothing here takes longer the more requests of others wait.
    """

    def __init__(self, make: Callable[[], RequestQueue]) -> None:
        """An empty queue.

        Args:
            make: Makes the queue of a task, by the policy of the scheduler.
        """
        self._make = make
        self._of: dict[TaskContent | None, RequestQueue] = {}
        self._seen: RequestQueue | None = None

    @property
    def lengths(self) -> dict[TaskContent | None, int]:
        """How many wait of each task that has some; who began to wait first is first."""
        self._of = {task: queue for task, queue in self._of.items() if queue}
        return {task: len(queue) for task, queue in self._of.items()}

    @contextmanager
    def only(self, task: TaskContent | None) -> Iterator[None]:
        """Show one task's requests."""
        self._seen = self._queue(task)
        try:
            yield
        finally:
            self._seen = None

    def add_request(self, request: Request) -> None:
        """By the policy."""
        self._queue(task_of(request)).add_request(request)

    def pop_request(self) -> Request:
        """By the policy."""
        return self._first().pop_request()

    def peek_request(self) -> Request:
        """By the policy."""
        return self._first().peek_request()

    def prepend_request(self, request: Request) -> None:
        """Before the others of its task."""
        self._queue(task_of(request)).prepend_request(request)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        """Before the others of their task, one after the other."""
        for request in requests:
            self.prepend_request(request)

    def remove_request(self, request: Request) -> None:
        """Raises ValueError if it is not there."""
        self._queue(task_of(request)).remove_request(request)

    def remove_requests(self, requests: Iterable[Request]) -> None:
        """Those that are there."""
        gone: dict[TaskContent | None, list[Request]] = {}
        for request in requests:
            gone.setdefault(task_of(request), []).append(request)
        for task, of_task in gone.items():
            self._queue(task).remove_requests(of_task)

    def __bool__(self) -> bool:
        return any(self._shown())

    def __len__(self) -> int:
        return sum(map(len, self._shown()))

    def __iter__(self) -> Iterator[Request]:
        return chain.from_iterable(self._shown())

    def _queue(self, task: TaskContent | None) -> RequestQueue:
        if task not in self._of:
            self._of[task] = self._make()
        return self._of[task]

    def _shown(self) -> Iterable[RequestQueue]:
        return self._of.values() if self._seen is None else (self._seen,)

    def _first(self) -> RequestQueue:
        return next(filter(None, self._shown()))
