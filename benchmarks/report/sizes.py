"""Sections of how small and how good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.footprint import OURS as OUR_LINE
from benchmarks.footprint import with_base
from benchmarks.methods import METHODS, OURS
from benchmarks.quality.curve import curves, frontier, measure_of
from benchmarks.report import scale
from benchmarks.report.section import Section, number, origin
from benchmarks.report.svg import Bar, Series, bars, chart, legend
from nps_store.cli.output import size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from benchmarks.report.section import Result


def rate_quality(result: Result) -> Iterator[Section]:
    """Curves of all methods, a section a group of models."""
    for group in dict.fromkeys(point["group"] for point in result["points"]):
        found = curves(result["points"], group)
        means = {name: frontier(found[name]) for name in METHODS if found.get(name)}
        series = [
            Series(name, [(mean.bits, mean.quality) for mean in line], name == OURS)
            for name, line in means.items()
        ]
        what = measure_of(group).replace("_", " ")
        points = [point for one in series for point in one.points]
        yield Section(
            f"Rate and quality: {group}",
            "Left and up is better. Bits count everything that a reader needs beside the base; "
            f"quality is {what} on test data, mean over the tasks.",
            chart(
                series,
                scale.logarithmic([x for x, _ in points]),
                scale.quality([y for _, y in points]),
                x_label="bits per body parameter",
                y_label=what,
            )
            + legend(series),
            ("method", "bits a parameter", "kB a task", what),
            [
                (name, f"{mean.bits:.4f}", f"{mean.nbytes / 1e3:.1f}", f"{mean.quality:.4f}")
                for name, line in means.items()
                for mean in line
            ],
            origin(result),
        )


def footprint(result: Result) -> Iterator[Section]:
    """Bars of bytes, the base's share apart."""
    base = result["base_nbytes"]
    n_tasks = len(result["source_hashes"])
    lines = sorted(result["lines"], key=lambda line: -with_base(result, line))
    rows = [
        Bar(
            line["way"],
            [("base", base if line["needs_base"] else 0),
             ("own" if line["way"] == OUR_LINE else "peer", line["nbytes"])],
            _told(result, line),
        )
        for line in lines
    ]  # fmt: skip
    keys = (("base", "the base, once"), ("peer", "tasks"), ("own", "tasks, this store"))
    marks = "".join(f'<li class="{style}"><i></i>{name}</li>' for style, name in keys)
    yield Section(
        f"Storage of {n_tasks} fine-tunes",
        "Bytes on disk of everything that is needed to run all tasks.",
        bars(rows) + f'<ul class="legend boxes">{marks}</ul>',
        ("way", "tasks", "with the base", "accuracy / dense", "from"),
        [
            (line["way"], size(line["nbytes"]), size(with_base(result, line)),
             _accuracy(line), line["source"])
            for line in lines
        ],
        origin(result),
    )  # fmt: skip


def stored_quality(result: Result) -> Iterator[Section]:
    """A table: a few numbers a task need no picture."""
    yield Section(
        "Quality of the stored tasks",
        "Measured from the file, on data that compression did not see.",
        "",
        ("task", "dense", "stored", "stored / dense", "examples", "bytes"),
        [
            (row["task"], *(number(row[key]) for key in ("dense", "stored", "ratio")),
             str(row["n_examples"]), size(row["nbytes"]))
            for row in result["tasks"]
        ],
        origin(result),
    )  # fmt: skip


def _told(result: Result, line: Mapping[str, Any]) -> str:
    whole = size(with_base(result, line))
    return f"{size(line['nbytes'])} + base = {whole}" if line["needs_base"] else whole


def _accuracy(line: Mapping[str, Any]) -> str:
    return "1 (lossless)" if line["lossless"] else number(line["accuracy_ratio"])
