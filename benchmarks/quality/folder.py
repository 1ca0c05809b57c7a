"""Rate against quality on fine-tunes of one's own: `nps bench quality --zoo`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group

from benchmarks.methods import METHODS, OURS
from benchmarks.quality.run import Run
from benchmarks.quality.table import tables
from benchmarks.quality.tasks import find_in
from nps_store.errors import BadOptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

FEW = (OURS, "BitDelta", "DeltaZip 2:4", "lossless xor + zstd")
"""Methods that are measured where none is named."""


def measure(
    folder: Path, *, base: Path, methods: Sequence[str], device: str, out: Path
) -> dict[str, Any]:
    """Measure methods at all their rates on every fine-tune; points that `out` has are kept.

    Args:
        folder: Model directories, and `data/NAME.calibration.jsonl` and `.test.jsonl` of each.
        base: What they are fine-tunes of.
        methods: Names of methods; none for a few.
        device: cpu or cuda.
        out: Result file, written as points come.

    Raises:
        BadOptionError: No fine-tunes with data, or no such method.
    """
    tasks = find_in(folder, base)
    if not tasks:
        raise BadOptionError(
            f"{folder}: no fine-tunes; expected model directories NAME, and "
            "data/NAME.calibration.jsonl and data/NAME.test.jsonl of each"
        )
    unknown = sorted(set(methods) - METHODS.keys())
    if unknown:
        raise BadOptionError(f"no method {unknown[0]!r}; there are {', '.join(METHODS)}")
    with tempfile.TemporaryDirectory(prefix="nps-bench-") as journal:
        run = Run(tasks, tasks, tuple(methods) or FEW, device, out, Path(journal), jobs=1)
        return run()


def table(result: dict[str, Any]) -> RenderableType:
    """The standing of each method at each of our points."""
    return Group(*tables(result))
