"""Renders what documents state from what was measured and from the code: `make docs`.

A document marks a generated part with `<!-- generated: NAME -->` and `<!-- end -->`, a figure in a
sentence with `<!-- figure: NAME -->`. A test compares the documents with what this would write.
"""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import footprint, recipe_page
from benchmarks.figures import FIGURES
from benchmarks.machine import measured_on
from benchmarks.quality import page
from benchmarks.reference import REFERENCE
from benchmarks.switch_densities import COPY, PLAIN, SWITCH, SWITCH_COLD
from nps_store.cli.output import size

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.S)
_FIGURE = re.compile(r"(<!-- figure: (\w+) -->).*?(<!-- end -->)", re.S)


def shipped_table() -> str:
    """Size and accuracy of the shipped store."""
    result = _read("shipped")
    rows = [
        "| task | dense accuracy | stored accuracy | ratio | dense | stored |",
        "|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {row['task']} | {row['dense']:.3f} | {row['stored']:.3f} | {row['ratio']:.3f} "
        f"| {row['dense_nbytes'] / 1e6:.1f} MB | {row['nbytes'] / 1e3:.0f} kB |"
        for row in result["tasks"]
    ]
    n_dense = sum(row["dense_nbytes"] for row in result["tasks"])
    rows.append(
        f"| **all {len(result['tasks'])}** | | | **{result['mean_ratio']:.3f}** (mean) "
        f"| **{n_dense / 1e6:.0f} MB** fp32 | **{result['store_nbytes'] / 1e6:.2f} MB**, the file |"
    )
    return "\n".join(rows) + f"\n\n{_origin(result)}\n"


def switch_table() -> str:
    """How long a switch takes."""
    result = _read("switch")
    rows = ["| what | median | p99 |", "|---|---|---|"]
    rows += [
        f"| {what} | {spread['p50']:.1f} ms | {spread['p99']:.1f} ms |"
        for what, spread in result["milliseconds"].items()
    ]
    return "\n".join(rows) + f"\n\n{_origin(result)}\n"


def densities_table() -> str:
    """What a switch costs by how much of the model it changes."""
    result = _read("switch")
    rows = ["| model | kept | switch | caches cold | plain torch | dense copy | switch / copy |",
            "|---|---|---|---|---|---|---|"]  # fmt: skip
    measured = {(row["model"], row["keep"], row["way"]): row for row in result["densities"]}
    for model, keep in dict.fromkeys((model, keep) for model, keep, _ in measured):
        ways = [measured[model, keep, way] for way in (SWITCH, SWITCH_COLD, PLAIN, COPY)]
        cells = " | ".join(f"{row['milliseconds']['p50']:.2f} ms" for row in ways)
        rows.append(f"| {model} | {keep:.1%} | {cells} | {ways[0]['ratio']:.2f} |")
    return "\n".join(rows) + "\n"


def switch_gpu_table() -> str:
    """The same on a GPU."""
    result = _read("switch_gpu")
    rows = ["| kept | switch | from pinned memory | plain torch | dense copy | switch / copy |",
            "|---|---|---|---|---|---|"]  # fmt: skip
    copy_ms = result["memory"]["copy_milliseconds"]
    for row in result["densities"]:
        times = [spread["p50"] for spread in row["milliseconds"].values()]
        cells = " | ".join(f"{ms:.1f} ms" for ms in (*times, copy_ms))
        rows.append(f"| {row['keep']:.1%} | {cells} | {times[0] / copy_ms:.2f} |")
    return "\n".join(rows) + f"\n\n{_origin(result)}\n"


def search_costs() -> str:
    """What the search takes, of a small and of a large model."""
    small, large = _read("search_cost"), _read("large_search")
    name = f"MiniLM, {FIGURES['classifier_parameters']()}"
    table = page.search_costs({name: small, "Llama, 8.0 B": large})
    return f"{table}\n{_origin(small)}\n\n{_origin(large)}\n"


def footprint_table() -> str:
    """The shipped tasks kept in other ways."""
    result = _read("footprint")
    dense = next(line["nbytes"] for line in result["lines"] if line["way"] == footprint.DENSE)
    rows = ["| kept as | tasks | with the base | of dense | accuracy / dense |",
            "|---|---|---|---|---|"]  # fmt: skip
    for line in result["lines"]:
        whole = footprint.with_base(result, line)
        ratio = line["accuracy_ratio"]
        told = "1 (lossless)" if line["lossless"] else "-" if ratio is None else f"{ratio:.3f}"
        mark = "**" if line["way"] == footprint.OURS else ""
        cells = (line["way"], size(line["nbytes"]), size(whole), f"{whole / dense:.1%}", told)
        rows.append("| " + " | ".join(f"{mark}{cell}{mark}" for cell in cells) + " |")
    taken = sorted({line["source"] for line in result["lines"] if "results/" in line["source"]})
    note = f"Rows with `lossless`, BitDelta and DeltaZip: {'; '.join(taken)}."
    return "\n".join(rows) + f"\n\n{_origin(result)} {note}\n"


def targets_table() -> str:
    """What each target came to."""
    result = _read("quality")
    rows = [row for row in page.points(result).splitlines() if "--keep" not in row]
    return "\n".join(rows) + f"\n\n{_origin(result)}\n"


def results_table() -> str:
    """What was measured by which command, when and on what."""
    rows = ["| result | measured by | on | date |", "|---|---|---|---|"]
    for path in sorted(RESULTS.glob("*.json")):
        result = _read(path.stem)
        device = measured_on(result)
        rows.append(f"| `{path.stem}` | `{result['command']}` | {device} | {result['date']} |")
    return "\n".join(rows) + "\n"


def _with_origin(name: str, table: Callable[[dict[str, Any]], str]) -> str:
    """A table of one result, and who measured it."""
    result = _read(name)
    return f"{table(result)}\n{_origin(result)}\n"


PARTS: dict[str, Callable[[], str]] = {
    "shipped_table": shipped_table,
    "switch_table": switch_table,
    "densities_table": densities_table,
    "switch_gpu_table": switch_gpu_table,
    "quality_points": partial(_with_origin, "quality", page.points),
    "quality_standing": lambda: page.standing(_read("quality")),
    "quality_missed": lambda: page.missed(_read("quality")),
    "quality_versus": lambda: page.versus(_read("quality")),
    "quality_claims": partial(_with_origin, "claims", page.claims),
    "search_costs": search_costs,
    "footprint_table": footprint_table,
    "targets_table": targets_table,
    "fusion_table": partial(_with_origin, "fusion", recipe_page.fusion),
    "transfer_table": partial(_with_origin, "transfer", recipe_page.transfer),
    "results_table": results_table,
    **REFERENCE,
}


def render(document: str) -> str:
    """The document as it should be."""
    text = (ROOT / document).read_text(encoding="utf-8")
    text = _PART.sub(lambda match: match[1] + PARTS[match[2]]() + match[3], text)
    return _FIGURE.sub(lambda match: match[1] + FIGURES[match[2]]() + match[3], text)


def _origin(result: dict[str, Any]) -> str:
    packages = result["packages"]
    return (
        f"Measured by `{result['command']}` on {result['cores']} cores of {result['processor']} "
        f"({result['device']}), torch {packages['torch']}, {result['date']}, "
        f"commit `{result['commit']}`."
    )


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    for name in DOCUMENTS:
        (ROOT / name).write_text(render(name), encoding="utf-8")
        sys.stderr.write(f"rendered {name}\n")
