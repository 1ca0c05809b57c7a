"""Many independent pieces of work by threads, for a reader none the wiser.

What decodes a large tensor leaves the interpreter's lock: compiled loops, zstd, numpy.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

MIN_COST = 1 << 20
"""Below that threads are not worth their start; decoded on one core in about 10 ms."""
COST_A_TURN = 1 << 16
"""Small items are done together, because handing one over takes as long as decoding thousands."""
MIN_COST_A_SHARE = 1 << 17
"""Below that, half a millisecond, a thread is hardly there before another has done it all."""
MAX_COST_AHEAD = 1 << 24
"""What results may wait for whoever takes them."""
MAX_THREADS = 16

T = TypeVar("T")
R = TypeVar("R")
Outcome: TypeAlias = tuple[list[R], Exception | None]


def ordered_map(
    function: Callable[[T], R], items: Sequence[T], *, cost: Callable[[T], int]
) -> Iterator[R]:
    """``map``, with results and errors in their order, by threads where there is much to do.

    Args:
        function: Called once an item, from any thread.
        items: What there is to do.
        cost: Of an item: about as many values as it is decoded to.
    """
    costs = [cost(item) for item in items]
    n_threads = min(n_cores(), len(items), MAX_THREADS)
    if sum(costs) < MIN_COST or n_threads < 2:
        yield from map(function, items)
        return
    threads = ThreadPoolExecutor(n_threads, "nps-read")
    waiting: deque[tuple[Future[Outcome[R]], int]] = deque()
    ahead = 0
    try:
        for turn, turn_cost in _turns(items, costs):
            while waiting and ahead + turn_cost > MAX_COST_AHEAD:
                first, first_cost = waiting.popleft()
                ahead -= first_cost
                yield from _results(first.result())
            waiting.append((threads.submit(_run, function, turn), turn_cost))
            ahead += turn_cost
        while waiting:
            yield from _results(waiting.popleft()[0].result())
    finally:
        threads.shutdown(cancel_futures=True)


def in_shares(function: Callable[[slice], R], costs: NDArray[np.int64]) -> list[R]:
    """Results for consecutive items that threads share, the caller's own among them.

    Args:
        function: Called with a slice of the items, from any thread.
        costs: int64[n], of each item: about as many values as it is decoded to.
    """
    ends = np.cumsum(costs)
    total = int(ends[-1])
    n_shares = min(n_cores(), MAX_THREADS, max(1, total // MIN_COST_A_SHARE))
    edges = np.searchsorted(ends, np.linspace(0, total, n_shares + 1), side="right").tolist()
    edges[-1] = len(costs)
    first, *others = (slice(*pair) for pair in itertools.pairwise(edges) if pair[0] < pair[1])
    if not others:
        return [function(first)]
    with ThreadPoolExecutor(len(others), "nps-read") as threads:
        waiting = [threads.submit(function, share) for share in others]
        return [function(first), *(future.result() for future in waiting)]


def n_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _turns(items: Sequence[T], costs: Sequence[int]) -> Iterator[tuple[list[T], int]]:
    """Consecutive items with their cost together."""
    turn: list[T] = []
    total = 0
    for item, item_cost in zip(items, costs, strict=True):
        if turn and total + item_cost > COST_A_TURN:
            yield turn, total
            turn, total = [], 0
        turn.append(item)
        total += item_cost
    yield turn, total


def _run(function: Callable[[T], R], turn: Sequence[T]) -> Outcome[R]:
    """Results up to the first error, and that."""
    results: list[R] = []
    try:
        for item in turn:
            results.append(function(item))  # noqa: PERF401 (what is there stays)
    except Exception as error:  # noqa: BLE001 (raised in its turn)
        return results, error
    return results, None


def _results(outcome: Outcome[R]) -> Iterator[R]:
    results, error = outcome
    yield from results
    if error is not None:
        raise error
