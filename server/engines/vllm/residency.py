"""The tasks that one worker holds: prepared ahead, put in place between steps, and what became of
them. All workers of an engine are told the same, in the same order."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from formats.errors import NpsError
from nps_store.switch.model_switcher import ModelSwitcher
from server.engines.vllm.contents import Contents, TaskContent
from server.engines.vllm.placed_model import PlacedModel
from server.errors import EngineFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from torch import Tensor, nn

    from nps_store.switch import Patch
    from server.engines.vllm.options import Options

N_RECENT = 10_000
"""Switches whose times are kept one by one."""


@dataclass
class TaskCounts:
    """What switches to one task took so far, whatever its content.

    Attributes:
        n_hits: Switches that found it prepared.
        wait_s: Seconds that switches waited until it was.
    """

    n_switches: int = 0
    n_hits: int = 0
    switch_s: float = 0.0
    wait_s: float = 0.0


class Residency:
    """A model in this process, and the tasks that can be put into it.

    Attributes:
        withdrawn: Names of tasks that shall not be served although the store has them.
    """

    def __init__(self, model: nn.Module, options: Options) -> None:
        """Find out where the base's tensors lie; raises UnsafeLayoutError."""
        self._device = next(model.parameters()).device
        if self._device.type == "cpu":
            # numba's threads are OpenMP's: where it starts more of them than vLLM bound to its
            # cores, every product of the model waits for threads that share a core.
            os.environ.setdefault("NUMBA_NUM_THREADS", str(torch.get_num_threads()))
        self.withdrawn: set[str] = set()
        self._contents = Contents(options.store, options.base)
        self._model = PlacedModel(model, self._contents.newest)
        self._switcher: ModelSwitcher[TaskContent] = ModelSwitcher(
            self._model.tensors.values(),
            self._changes,
            max_nbytes=options.max_nbytes,
            max_host_nbytes=options.max_host_nbytes,
        )
        self._switcher.warm_up()
        self._preparing: dict[TaskContent, Future[Any]] = {}
        self._failed: dict[TaskContent, BaseException] = {}
        self._pinned: set[TaskContent] = set()
        self._counts: dict[str, TaskCounts] = {}
        self._recent_s: deque[float] = deque(maxlen=N_RECENT)

    @property
    def current(self) -> TaskContent | None:
        """The task in place; None for the base."""
        return self._switcher.current

    def hold(self, task: TaskContent) -> None:
        """Begin to prepare a task and keep its content readable; `states` says what came of it."""
        self._contents.hold(task)
        self._failed.pop(task, None)
        self._preparing[task], _ = self._switcher.prepare(task)

    def release(self, task: TaskContent) -> None:
        """Undo one `hold`, when no request in flight is for it."""
        if self._contents.release(task):
            self._preparing.pop(task, None)
            self._failed.pop(task, None)
            self.pin(task, is_pinned=False)
            self._switcher.keep(self._contents.__contains__)

    def pin(self, task: TaskContent, *, is_pinned: bool) -> None:
        """Keep a prepared task in memory whatever room it takes, or no longer."""
        (self._pinned.add if is_pinned else self._pinned.discard)(task)
        self._switcher.pin(task, is_pinned=is_pinned)

    def prefetch(self, task: TaskContent) -> None:
        """Begin to prepare a held task that will be wanted soon."""
        if task in self._contents:
            self._switcher.prepare(task)

    def states(self) -> list[dict[str, Any]]:
        """Every held content, and whether it is loading, ready, absent (it left memory and comes
        back when it is wanted) or failed."""
        return [self._state(task) for task in self._preparing]

    def statistics(self) -> dict[str, Any]:
        """Counts and seconds so far: of all, and by task."""
        by_task = {name: asdict(counts) for name, counts in self._counts.items()}
        return {**asdict(self._switcher.statistics), "by_task": by_task}

    def recent_switches_s(self) -> list[float]:
        """Seconds of each of the last switches to a task, until the device was done."""
        return list(self._recent_s)

    def switch_(self, task: TaskContent | None) -> BaseException | None:
        """Put a task in place, if it is not there.

        Returns:
            Why it could not be; the weights are another task's or the base's then, and the task
            stays failed until it is held again.

        Raises:
            EngineFailedError: The base could not be put in place.
        """
        if task is None:
            try:
                if self.current is not None:
                    self._switcher.switch_(None)
            except Exception as error:
                raise EngineFailedError(f"the base cannot be put in place: {error}") from error
            return None
        if task not in self._failed:
            try:
                self._put_in_place(task)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other tasks go on
                self.fail(task, error)
        return self._failed.get(task)

    def fail(self, task: TaskContent, error: BaseException) -> None:
        """Have no request of this task run until it is held again; the base comes in its place."""
        self._failed[task] = error
        if self.current == task:
            self.switch_(None)

    def close(self) -> None:
        """Revert to the base and release the file."""
        self._switcher.close()
        self._contents.close()

    def _put_in_place(self, task: TaskContent) -> None:
        if self.current == task:
            return
        self._contents.of(task)
        if self._device.type == "cuda":  # the step before may still run, and is no part of it
            torch.cuda.current_stream(self._device).synchronize()
        began = time.perf_counter()
        is_hit = self._switcher.prepared_nbytes(task) is not None
        switch_s = self._switcher.switch_(task)
        counts = self._counts.setdefault(task.name, TaskCounts())
        counts.n_switches += 1
        counts.n_hits += is_hit
        counts.switch_s += switch_s
        counts.wait_s += time.perf_counter() - began - switch_s
        self._recent_s.append(switch_s)

    def _changes(self, task: TaskContent) -> Iterator[tuple[Tensor, Patch]]:
        return self._model.pairs(self._contents.of(task), task.name)

    def _state(self, task: TaskContent) -> dict[str, Any]:
        future, error = self._preparing[task], self._failed.get(task)
        if error is None and future.done() and not future.cancelled():
            error = future.exception()
        nbytes = self._switcher.prepared_nbytes(task)
        state = "absent" if nbytes is None else "ready"
        if error is not None:
            state = "failed"
        elif not future.done():
            state = "loading"
        return {
            "task": task,
            "state": state,
            "nbytes": nbytes or 0,
            "is_pinned": task in self._pinned,
            "error": None if error is None else _described(error),
        }


def _described(error: BaseException) -> tuple[str, str]:
    """An error's id and message, as they travel between processes."""
    is_own = isinstance(error, NpsError)
    return (error.id if is_own else EngineFailedError.id), str(error) or type(error).__name__
