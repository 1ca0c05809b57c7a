"""What each kind of result looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.footprint import OURS as OUR_LINE
from benchmarks.footprint import with_base
from benchmarks.methods import METHODS, OURS
from benchmarks.quality.curve import curves, frontier, measure_of
from benchmarks.report import scale
from benchmarks.report.section import Section, origin
from benchmarks.report.svg import Bar, Series, bars, chart, legend
from nps_store.cli.output import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Result = dict[str, Any]
SHOWN = ("p1", "p50", "p99", "p99.9")


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


def switches(result: Result) -> Iterator[Section]:
    """Distributions of the ways to switch."""
    yield _distributions("Switching among a store's tasks", result["milliseconds"], result)


def gpu_switches(result: Result) -> Iterator[Section]:
    """The same on a GPU, a line a density."""
    spreads = {
        f"{row['keep']:.1%} kept, {way}": spread
        for row in result["densities"]
        for way, spread in row["milliseconds"].items()
    }
    title = f"Switching on a GPU, {result['numel'] / 1e9:.1f} B parameters"
    yield _distributions(title, spreads, result)


def load(result: Result) -> Iterator[Section]:
    """Throughput and latency by mix of tasks."""
    runs = {run["mix"]: run for run in result["runs"]}
    rows = [
        Bar(f"{mix}, {len(run['models'])} tasks", [("own", run["answered_per_s"])],
            f"{run['answered_per_s']:.1f}/s of {result['offered_per_s']:g}/s, "
            f"{run['n_errors']} errors")
        for mix, run in runs.items()
    ]  # fmt: skip
    yield Section(
        "Throughput by mix of tasks",
        f"Answers a second of {result['route']} under open-loop load: requests come at random "
        "times, whether or not earlier ones are answered.",
        bars(rows),
        ("mix", "requests", "outcomes", "answers/s", "tokens/s"),
        [
            (mix, str(run["n_requests"]), str(run["outcomes"]), f"{run['answered_per_s']:.2f}",
             f"{run['tokens_per_s']:.1f}")
            for mix, run in runs.items()
        ],
        origin(result),
    )  # fmt: skip
    times = {mix: run["milliseconds"] for mix, run in runs.items() if "p50" in run["milliseconds"]}
    if times:
        yield _distributions("Latency by mix of tasks", times, result)


def vllm_serving(result: Result) -> Iterator[Section]:
    """Tokens a second of each way of serving several tasks by vLLM."""
    last = result["rounds"][-1]
    rows = [
        Bar(way, [("peer" if number else "own", run["tokens_per_s"])],
            f"{run['tokens_per_s']:.0f} tokens/s")
        for number, (way, run) in enumerate(last.items())
    ]  # fmt: skip
    yield Section(
        f"Generation by vLLM, {result['tasks']} tasks, {result['size']}",
        "The same requests in every way.",
        bars(rows),
        ("way", "tokens/s", "first token p50 s", "p99 s"),
        [
            (way, f"{run['tokens_per_s']:.1f}",
             *(_number(run["first_token_s"].get(key)) for key in ("p50", "p99")))
            for way, run in last.items()
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
            (row["task"], *(_number(row[key]) for key in ("dense", "stored", "ratio")),
             str(row["n_examples"]), size(row["nbytes"]))
            for row in result["tasks"]
        ],
        origin(result),
    )  # fmt: skip


SECTIONS: Mapping[str, Callable[[Result], Iterator[Section]]] = {
    "nps.bench-footprint/1": footprint,
    "nps.bench-quality/1": rate_quality,
    "nps.bench-serve/1": load,
    "nps.bench-shipped/1": stored_quality,
    "nps.bench-stored-quality/1": stored_quality,
    "nps.bench-switch-gpu/1": gpu_switches,
    "nps.bench-switch/1": switches,
    "nps.bench-vllm-serving/1": vllm_serving,
}
"""By the schema of a result file."""


def _distributions(title: str, spreads: Mapping[str, Any], result: Result) -> Section:
    series = []
    for number, (name, spread) in enumerate(spreads.items()):
        points = [(float(key[1:]) / 100, value) for key, value in spread.items() if key[0] == "p"]
        series.append(Series(name, points, number == 0))
    shares, times = zip(*(point for one in series for point in one.points), strict=True)
    picture = chart(
        series,
        scale.percentiles(shares),
        scale.logarithmic(times),
        x_label="percentile",
        y_label="milliseconds",
    )
    return Section(
        title,
        "Lower is better; a flat line is a time that one can count on.",
        picture + legend(series),
        ("what", *SHOWN, "n"),
        [
            (name, *(_number(spread.get(key)) for key in SHOWN), str(spread["n"]))
            for name, spread in spreads.items()
        ],
        origin(result),
    )


def _told(result: Result, line: Mapping[str, Any]) -> str:
    whole = size(with_base(result, line))
    return f"{size(line['nbytes'])} + base = {whole}" if line["needs_base"] else whole


def _accuracy(line: Mapping[str, Any]) -> str:
    return "1 (lossless)" if line["lossless"] else _number(line["accuracy_ratio"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
