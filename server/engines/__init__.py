"""The seam between the service and what computes: one resident base and the tasks put on it.

An engine is a folder of this package. It knows the store and the model; it knows no HTTP, no queue
and no policy of which task is resident. A task is named by its name in the store; `None` is the
base.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["classify", "embed"]
TokenIds = list[int]


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What the store says of a task without loading it.

    Attributes:
        content_hash: Changes whenever the task's content does.
        nbytes: Bytes of the task in the store's file.
        created: Unix seconds.
        details: Method, measured quality and so on, as recorded at compression.
    """

    name: str
    content_hash: str
    nbytes: int
    created: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Catalog:
    """The base and the tasks of one store generation."""

    base: str
    generation: int
    tasks: Mapping[str, TaskInfo]

    def model_name(self, task: str | None) -> str:
        """The name under which clients know `task`."""
        return self.base if task is None else task


class PreparedTask(Protocol):
    """A task in memory, ready to be put in place; immutable.

    Attributes:
        name: The task's name; None for the base.
        content_hash: The content it was read from.
        nbytes: Bytes that it occupies.
        kind: What it computes.
        labels: Class names in the order of the probabilities; empty for embeddings.
    """

    @property
    def name(self) -> str | None: ...
    @property
    def content_hash(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def labels(self) -> Sequence[str]: ...


class Engine(Protocol):
    """One base model and the means to serve every task of a store from it.

    Threads: `open`, `refresh` and `prepare` run on a loader thread, `encode` and `check_token_ids`
    on another, `switch_`, `run` and `recover_` on the one worker thread that owns the weights.
    """

    name: str

    def open(self) -> Catalog:
        """Identify and load the base. Raises NpsError where store and base do not fit."""
        ...

    def close(self) -> None:
        """Let go of files and memory; idempotent."""
        ...

    @property
    def base_nbytes(self) -> int:
        """Bytes of the base's weights, hence of one copy of the body."""
        ...

    def refresh(self) -> Catalog | None:
        """The catalog of a newer store generation, or None where there is none.

        Raises:
            EngineFailedError: The store was remade for another base than the resident one, so
                nothing of it can be served any more.
            Exception: Anything else leaves the engine at the generation that it had.
        """
        ...

    def prepare(self, task: str | None, *, copy: bool = False) -> PreparedTask:
        """Read, verify and decode a task without touching a weight in use.

        Args:
            task: A task's name; None for the base.
            copy: Give the task its own copy of the body.

        Raises:
            NpsError: The content is damaged, or this engine cannot serve it.
        """
        ...

    def encode(
        self, prepared: PreparedTask, texts: Sequence[str], *, max_tokens: int | None = None
    ) -> list[TokenIds]:
        """Token ids of each text by the task's tokenizer, cut to `max_tokens` or the limit."""
        ...

    def check_token_ids(self, prepared: PreparedTask, token_ids: Sequence[TokenIds]) -> None:
        """Raise BadRequestError unless the model can take these ids."""
        ...

    def switch_(self, prepared: PreparedTask) -> float:
        """Put the task's weights in place, all or nothing. Returns seconds; 0 if nothing moved."""
        ...

    def run(self, prepared: PreparedTask, token_ids: Sequence[TokenIds]) -> NDArray[np.float32]:
        """Probabilities [n, n_labels] or vectors [n, dim] of the task in place."""
        ...

    def recover_(self) -> bool:
        """After an exception: revert to the base and prove by hash that it is bit-identical."""
        ...
