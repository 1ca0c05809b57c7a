"""What can go wrong while serving. How a class looks over HTTP is a table in `http/errors.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from formats.errors import NpsError
from nps_store.recipes.catalog import SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Iterable


class ServerError(NpsError, RuntimeError):
    """Root of the server's own errors."""

    id = "server.error"
    exit_code = 50


class BadRequestError(ServerError, ValueError):
    """A request is well-formed JSON of the right shape and still cannot be answered.

    Attributes:
        param: The field of the request that is at fault.
    """

    id = "server.bad_request"
    exit_code = 51

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ModelNotFoundError(ServerError, KeyError):
    """`model` names neither the base nor a task of the store."""

    id = "server.model_not_found"
    exit_code = 52
    param = "model"

    @classmethod
    def of(cls, model: str, known: Iterable[str]) -> Self:
        """Of a name that is none of the known ones, but maybe the recipe's of some of them."""
        heads = [name for name in known if name.startswith(f"{model}{SEPARATOR}")]
        hint = f"; it has several heads: ask for {' or '.join(heads)}" if heads else ""
        return cls(f"the model {model!r} does not exist{hint}")


class WrongRouteError(ServerError, ValueError):
    """A classifier was asked for embeddings, or an embedding model for classes."""

    id = "server.wrong_route"
    exit_code = 53
    param = "model"


class OverloadedError(ServerError):
    """The queue is full.

    Attributes:
        retry_after_s: Seconds after which there should be room again.
    """

    id = "server.overloaded"
    exit_code = 54

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReadyError(ServerError):
    """The base is not loaded yet, no longer trusted, or there is no room to load the task now."""

    id = "server.not_ready"
    exit_code = 55
    retry_after_s = 1.0


class TaskQuarantinedError(ServerError):
    """The task's stored content could not be read or put in place; other tasks go on."""

    id = "server.task_quarantined"
    exit_code = 56
    param = "model"


class ResidencyConflictError(ServerError, ValueError):
    """The memory budget or a pin forbids what was asked."""

    id = "server.residency_conflict"
    exit_code = 57
    param = "model"


class EngineFailedError(ServerError):
    """The engine raised while it ran a batch."""

    id = "server.engine_failed"
    exit_code = 58


class ListenError(ServerError, OSError):
    """The address cannot be listened on."""

    id = "server.listen"
    exit_code = 59


class VllmVersionError(ServerError, ImportError):
    """vLLM is not installed, or not in a version that the engine was made for."""

    id = "server.vllm_version"
    exit_code = 61


class UnsafeLayoutError(ServerError, ValueError):
    """A loaded model holds its weights in a form in which a task cannot be written in place."""

    id = "server.unsafe_layout"
    exit_code = 62
