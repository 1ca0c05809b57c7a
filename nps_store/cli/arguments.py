"""Arguments that several verbs share, with the words that explain them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nps_store.errors import BadOptionError

if TYPE_CHECKING:
    from collections.abc import Collection

    from nps_store.compress import TaskSource

StorePath = Annotated[Path, typer.Argument(help="The store (.nps).", show_default=False)]
TaskName = Annotated[str, typer.Argument(help="Name of a task in the store.", show_default=False)]
BaseDir = Annotated[
    Path | None,
    typer.Option("--base", help="Directory of the external base; default: where it was."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Device = Annotated[str, typer.Option("--device", help="Where the model runs: cpu or cuda.")]


class Method(StrEnum):
    """How task vector elements are chosen."""

    nps = "nps"
    topk = "topk"
    dither = "dither"
    dare = "dare"
    magnitude = "magnitude"
    exact = "exact"


class ObjectiveName(StrEnum):
    """What the search minimises."""

    distill = "distill"
    loss = "loss"
    accuracy = "accuracy"


class BaseStorage(StrEnum):
    """Where the base's weights are."""

    external = "external"
    embed = "embed"


Tasks = Annotated[
    list[str],
    typer.Option("--task", help="NAME=DIR: a fine-tune to store; repeat.", show_default=False),
]
Calibrations = Annotated[
    list[str] | None,
    typer.Option(
        "--calib", help='NAME=FILE.jsonl: lines {"text", "label"} to calibrate a task on; repeat.'
    ),
]
Target = Annotated[
    float | None,
    typer.Option(
        help="Share of the fine-tune's gain to keep. "
        "Default: 0.99 of a language model's loss gain, 0.98 of another model's divergence."
    ),
]
Keep = Annotated[float | None, typer.Option(help="Fraction of elements to keep instead.")]
MaxBytes = Annotated[
    int | None, typer.Option(help="Bytes a task may take instead, everything included.")
]
MethodOption = Annotated[Method, typer.Option(help="How elements are selected.")]
ObjectiveOption = Annotated[
    ObjectiveName | None,
    typer.Option(
        help="What the search minimises; by default distill, which needs no labels, and for a "
        "language model loss, which needs none either."
    ),
]
Dtype = Annotated[
    str | None, typer.Option(help="Compress for another dtype than the base's: F32, F16 or BF16.")
]
Seed = Annotated[int, typer.Option(help="Of dither, search and data split.")]
SearchSeconds = Annotated[
    float | None, typer.Option(help="Wall-clock budget of the search, for each task.")
]
Jobs = Annotated[
    int,
    typer.Option(
        help="Tasks to compress at a time, in processes that share the cores, each with a model "
        "of its own in memory; on a GPU they all share the device."
    ),
]
JournalDir = Annotated[
    Path | None,
    typer.Option(
        "--journal",
        help="Directory to record every trial of the search in: the same command, given again "
        "after it was stopped, goes on from there to the identical result.",
    ),
]
Evaluations = Annotated[int, typer.Option(help="Model evaluations of the weight search.")]
Steps = Annotated[
    int,
    typer.Option(
        help="Steps of learning the selection by gradients at the first rate, of which later ones "
        "take less; 0 leaves it as searched."
    ),
]


def task_sources(tasks: list[str], calibrations: list[str] | None) -> list[TaskSource]:
    """Pair NAME=DIR with NAME=FILE.

    Raises:
        BadOptionError: Not of that form, or a calibration file for a task that is not given.
    """
    from nps_store.compress import TaskSource

    pairs = [_pair("--task", text) for text in tasks]
    files = calibration_files(calibrations, [name for name, _ in pairs])
    return [TaskSource(name, path, files.get(name)) for name, path in pairs]


def named_files(option: str, given: list[str] | None) -> dict[str, Path]:
    """NAME=FILE by name.

    Raises:
        BadOptionError: Not of that form, or a name twice.
    """
    files: dict[str, Path] = {}
    for name, path in (_pair(option, text) for text in given or []):
        if name in files:
            raise BadOptionError(f"{option} names {name!r} twice; give it one file")
        files[name] = path
    return files


def calibration_files(given: list[str] | None, tasks: Collection[str]) -> dict[str, Path]:
    """NAME=FILE by name.

    Raises:
        BadOptionError: Not of that form, twice, or for a task that is not given.
    """
    files = named_files("--calib", given)
    unknown = sorted(set(files) - set(tasks))
    if unknown:
        raise BadOptionError(f"--calib names task {unknown[0]!r}, which no --task gives")
    return files


def _pair(option: str, text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or not name or not path:
        raise BadOptionError(f"{option} is {text!r}; expected NAME=PATH")
    return name, Path(path)
