"""The options of a compression, which `nps compress` and `nps add` share."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nps_store.cli import arguments as arg
from nps_store.cli.progress import CompressProgress

if TYPE_CHECKING:
    from collections.abc import Callable

    from nps_store.compress import Options, TaskSource


@dataclass(frozen=True, kw_only=True)
class CompressionOptions:
    """As the command line has them."""

    task: arg.Tasks
    calib: arg.Calibrations = None
    target: arg.Target = None
    keep: arg.Keep = None
    max_bytes: arg.MaxBytes = None
    method: arg.MethodOption = arg.Method.nps
    objective: arg.ObjectiveOption = None
    dtype: arg.Dtype = None
    seed: arg.Seed = 0
    evaluations: arg.Evaluations = 30
    steps: arg.Steps = 200
    search_seconds: arg.SearchSeconds = None
    device: arg.Device = "cpu"
    jobs: arg.Jobs = 1
    journal: arg.JournalDir = None

    def sources(self) -> list[TaskSource]:
        """The tasks with their calibration files.

        Raises:
            BadOptionError: They do not go together.
        """
        return arg.task_sources(self.task, self.calib)

    def progress(self, *, quiet: bool) -> CompressProgress:
        """What shows the compression."""
        return CompressProgress(
            quiet=quiet, evaluations=self.evaluations, search_seconds=self.search_seconds
        )

    def to_options(self) -> Options:
        """How to compress.

        Raises:
            BadOptionError: Options contradict each other or lie out of range.
        """
        from nps_store.compress import Options

        return Options(
            method=self.method.value,
            target=self.target,
            keep=self.keep,
            max_nbytes=self.max_bytes,
            objective=None if self.objective is None else self.objective.value,
            dtype=self.dtype,
            seed=self.seed,
            evaluations=self.evaluations,
            steps=self.steps,
            search_seconds=self.search_seconds,
            device=self.device,
        )


def with_compression_options(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb whose one parameter of that class appears as the options that make it up, which is how
    typer sees them."""
    shared = inspect.signature(CompressionOptions, eval_str=True).parameters
    own = inspect.signature(verb, eval_str=True).parameters
    (place,) = (name for name, one in own.items() if one.annotation is CompressionOptions)

    def run(**given: object) -> None:
        options = CompressionOptions(**{name: given.pop(name) for name in shared})  # type: ignore[arg-type]
        verb(**given, **{place: options})

    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, one in own.items()
        for parameter in (shared.values() if name == place else [one])
    ]
    run.__name__, run.__doc__ = verb.__name__, verb.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
