"""The results as Markdown tables, for the documents."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.markdown import head, row
from benchmarks.methods import OURS
from benchmarks.quality.claims import PAPER_KEEPS, figures
from benchmarks.quality.claims import versus as versus_lines
from benchmarks.quality.curve import Mean, curves, measure_of
from benchmarks.quality.table import rows, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def points(result: dict[str, Any]) -> str:
    """Every rate of ours: what it keeps, and what it takes on average and at most."""
    lines = head(["models", "asked", "kept (test)", "bits a parameter", "kB a task", "at most"])
    for group in _groups(result):
        for mean in curves(result["points"], group)[OURS]:
            what = measure_of(group).replace("_", " ")
            size = f"{mean.nbytes / 1e3:.1f}", f"{mean.most_nbytes / 1e3:.1f}"
            kept = f"{mean.quality:.4f} ({what})"
            lines.append(row([group, _setting(mean), kept, f"{mean.bits:.4f}", *size]))
    return "\n".join(lines) + "\n"


def standing(result: dict[str, Any]) -> str:
    """What other methods take for the quality of our points, and in words where one is ahead."""
    return "\n".join(_standing(result)) + "\n"


def missed(result: dict[str, Any]) -> str:
    """Where the test data keep less than the target that was asked."""
    lines = [
        f"- {group}: asked {mean.setting['target']:g}, kept {mean.quality:.4f}"
        for group in _groups(result)
        for mean in curves(result["points"], group)[OURS]
        if mean.quality < mean.setting.get("target", 0)
    ]
    return "\n".join(lines or ["None."]) + "\n"


def versus(result: dict[str, Any]) -> str:
    """The paper's rule beside its two peers, at the kept fractions that the paper reports."""
    table = head(["accuracy ratio at kept", *(f"{keep:g}" for keep in PAPER_KEEPS)])
    return "\n".join([*table, *map(row, versus_lines(result["points"]))]) + "\n"


def claims(result: dict[str, Any]) -> str:
    """Every variation, one table a rule."""
    parts = []
    for title, lines in figures(result):
        table = head([title, "accuracy ratio", "gain kept"])
        parts.append("\n".join([*table, *map(row, lines)]))
    return "\n\n".join(parts) + "\n"


def search_costs(results: dict[str, dict[str, Any]]) -> str:
    """What searching and learning take beside the model's own passes, in time and memory."""
    lines = head(["model", "stage", "seconds", "of which passes", "beyond them, each evaluation",
                   "peak GB", "beside the model", "base and task vector"])  # fmt: skip
    for name, result in results.items():
        of = "peak_nbytes", "beside_the_model_nbytes", "base_and_task_vector_nbytes"
        gb = [f"{result['memory'][key] / 1e9:.2f}" for key in of]
        for stage in ("search", "learning"):
            cost = result[stage]
            beyond = cost["seconds"] - cost["forward_s"]
            each = beyond / (cost["steps"] or cost["evaluations"])
            seconds = f"{cost['seconds']:.1f}", f"{cost['forward_s']:.1f}", f"{each:.3f}"
            lines.append(row([name, stage, *seconds, *(gb if stage == "search" else [""] * 3)]))
    return "\n".join(lines) + "\n"


def _standing(result: dict[str, Any]) -> Iterator[str]:
    for group in _groups(result):
        columns = list(rows(result["points"], group))
        yield from head([group, *(f"{ours.quality:.4f}" for ours, _ in columns)])
        yield row([f"{OURS}: bits", *(f"{ours.bits:.4f}" for ours, _ in columns)])
        for name in columns[0][1]:
            yield row([name, *(standings[name] for _, standings in columns)])
        yield f"\n{verdict(group, columns)}\n"


def _groups(result: dict[str, Any]) -> Iterable[str]:
    return dict.fromkeys(point["group"] for point in result["points"])


def _setting(mean: Mean) -> str:
    ((name, value),) = mean.setting.items()
    return f"`--{name} {json.dumps(value)}`"
