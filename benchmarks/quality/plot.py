"""The rate-quality curves.

python -m benchmarks.quality.plot
"""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 (typer evaluates the annotations)
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from benchmarks.methods import METHODS, OURS
from benchmarks.quality.curve import curves, frontier, measure_of
from benchmarks.quality.table import RESULT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

BEST, WORST = 0.9995, 0.3
"""What is outside is drawn at the edge."""
TICKS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
MARKERS = "osv^D<>pP*Xhd8Hd|_"


def draw(result: dict[str, Any], out: Path) -> None:
    """One panel a group, into a file of any type that matplotlib writes.

    Raises:
        ModuleNotFoundError: matplotlib is not installed (extra `bench`).
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    groups = list(dict.fromkeys(point["group"] for point in result["points"]))
    figure, axes = pyplot.subplots(
        1, len(groups), figsize=(6.5 * len(groups), 6.5), squeeze=False, layout="constrained"
    )
    labels = {}
    for group, axis in zip(groups, axes[0], strict=True):
        _panel(axis, result, group)
        handles, names = axis.get_legend_handles_labels()
        labels |= dict(zip(names, handles, strict=True))
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=6)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def _panel(axis: Axes, result: dict[str, Any], group: str) -> None:
    found = curves(result["points"], group)
    for number, name in enumerate(METHODS):
        means = frontier(found.get(name, []))
        if not means:
            continue
        is_ours = name == OURS
        axis.plot(
            [mean.bits for mean in means],
            [min(max(mean.quality, WORST), BEST) for mean in means],
            marker=MARKERS[number % len(MARKERS)],
            color="black" if is_ours else f"C{number % 10}",
            linewidth=2.5 if is_ours else 1.0,
            markersize=6 if is_ours else 4.5,
            zorder=3 if is_ours else 2,
            linestyle="-" if number < 10 else "--",
            label=name,
        )
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_yscale("function", functions=(_stretch, _unstretch))
    axis.set_ylim(WORST, BEST)
    axis.set_yticks([*TICKS, BEST], [*(f"{tick:g}" for tick in TICKS), "all"])
    axis.set_xlabel("bits per body parameter, everything included")
    axis.set_ylabel(f"{measure_of(group).replace('_', ' ')} (test)")
    axis.set_title(group)
    axis.grid(alpha=0.3)


def _stretch(quality: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equal distances for equal ratios of what is lost."""
    return -np.log10(np.maximum(1 - np.asarray(quality), 1e-4))


def _unstretch(height: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 - 10 ** -np.asarray(height)


def main(
    result: Annotated[Path, typer.Argument(help="Result file.")] = RESULT,
    out: Annotated[Path | None, typer.Option(help="Image to write.")] = None,
) -> None:
    """Draw the curves of a result file."""
    draw(json.loads(result.read_text()), out or result.with_suffix(".svg"))


if __name__ == "__main__":
    typer.run(main)
