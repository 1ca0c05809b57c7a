"""A complete small engine in numpy, for what the real one cannot be made to do on demand.

It holds one vector of weights that `switch_` changes in place and `run` reads, so an answer that
was computed on another task's weights is a different answer. Tests hold it up and make it fail
through its fields.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from nps_store.errors import UnsupportedTaskError
from server.engines import Catalog, Kind, TaskInfo, TokenIds
from server.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 64


@dataclass(frozen=True, slots=True)
class ToyTask:
    name: str | None
    content_hash: str
    delta: float
    labels: tuple[str, ...] = ()
    nbytes: int = 100
    is_copy: bool = False

    @property
    def kind(self) -> Kind:
        return "classify" if self.labels else "embed"


@dataclass
class ToyEngine:
    tasks: dict[str, ToyTask] = field(default_factory=dict)
    name: str = "toy"
    base_nbytes: int = 1000
    generation: int = 1
    is_open: bool = False
    weights: np.ndarray = field(default_factory=lambda: np.zeros(WIDTH, np.float32))
    prepared: list[str | None] = field(default_factory=list)
    batches: list[tuple[str | None, int]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    load_gate: threading.Event = field(default_factory=threading.Event)
    open_error: Exception | None = None
    prepare_errors: dict[str | None, Exception] = field(default_factory=dict)
    switch_error: Exception | None = None
    run_errors: dict[str | None, Exception] = field(default_factory=dict)
    is_consistent: bool = True
    needs_copy: str | None = None
    refresh_error: Exception | None = None
    _seen: int = 1

    def __post_init__(self) -> None:
        self.gate.set()
        self.load_gate.set()

    @classmethod
    def with_tasks(cls, **n_labels: int) -> ToyEngine:
        engine = cls()
        for index, (name, n) in enumerate(n_labels.items()):
            labels = tuple(f"{name}-{i}" for i in range(n))
            engine.tasks[name] = ToyTask(name, f"{name}@1", index + 1.0, labels)
        return engine

    def put(self, task: ToyTask) -> None:
        self.tasks[task.name or ""] = task
        self.generation += 1

    def remove(self, name: str) -> None:
        del self.tasks[name]
        self.generation += 1

    def catalog(self) -> Catalog:
        tasks = {t.name: TaskInfo(t.name, t.content_hash, 10) for t in self.tasks.values()}
        return Catalog("toy-base", self.generation, tasks)

    def open(self) -> Catalog:
        self.load_gate.wait(10)
        if self.open_error is not None:
            raise self.open_error
        self.is_open = True
        self._seen = self.generation
        return self.catalog()

    def close(self) -> None:
        self.is_open = False

    def refresh(self) -> Catalog | None:
        if self.refresh_error is not None:
            raise self.refresh_error
        if self._seen == self.generation:
            return None
        self._seen = self.generation
        return self.catalog()

    def prepare(self, task: str | None, *, copy: bool = False) -> ToyTask:
        self.load_gate.wait(10)
        self.prepared.append(task)
        if task in self.prepare_errors:
            raise self.prepare_errors[task]
        if task is None:
            return ToyTask(None, "", 0.0, nbytes=0)
        if task == self.needs_copy and not copy:
            raise UnsupportedTaskError(f"{task} needs a copy")
        found = self.tasks[task]
        return replace(found, is_copy=copy, nbytes=self.base_nbytes if copy else found.nbytes)

    def encode(
        self, prepared: ToyTask, texts: Sequence[str], *, max_tokens: int | None = None
    ) -> list[TokenIds]:
        return [[ord(c) % WIDTH for c in text][:max_tokens] or [0] for text in texts]

    def check_token_ids(self, prepared: ToyTask, token_ids: Sequence[TokenIds]) -> None:
        if any(not 0 <= i < WIDTH for ids in token_ids for i in ids):
            raise BadRequestError("token id out of range", param="input")

    def switch_(self, prepared: ToyTask) -> float:
        if self.switch_error is not None:
            raise self.switch_error
        if prepared.is_copy or self.weights[0] == prepared.delta:
            return 0.0
        self.weights[:] = prepared.delta
        return 0.001

    def run(self, prepared: ToyTask, token_ids: Sequence[TokenIds]) -> np.ndarray:
        self.batches.append((prepared.name, len(token_ids)))
        self.gate.wait(10)
        if prepared.name in self.run_errors:
            raise self.run_errors[prepared.name]
        weights = np.full(WIDTH, prepared.delta, np.float32) if prepared.is_copy else self.weights
        return self.answers(weights, token_ids, n_labels=len(prepared.labels))

    def recover_(self) -> bool:
        self.weights[:] = 0.0
        return self.is_consistent

    @staticmethod
    def answers(weights: np.ndarray, token_ids: Sequence[TokenIds], *, n_labels: int) -> np.ndarray:
        sums = np.array([sum(ids) for ids in token_ids], np.float32)
        if not n_labels:
            return sums[:, None] + weights[None, :4]
        logits = np.cos(sums[:, None] * 0.1 + weights[0] * np.arange(1, n_labels + 1))
        return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)

    def expected(self, name: str, text: str) -> np.ndarray:
        task = self.tasks[name]
        weights = np.full(WIDTH, task.delta, np.float32)
        return self.answers(weights, self.encode(task, [text]), n_labels=len(task.labels))[0]
