"""Sections of how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.report import scale
from benchmarks.report.section import Section, number, origin
from benchmarks.report.svg import Bar, Series, bars, chart, legend

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from benchmarks.report.section import Result

SHOWN = ("p1", "p50", "p99", "p99.9")


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
        Bar(way, [("peer" if place else "own", run["tokens_per_s"])],
            f"{run['tokens_per_s']:.0f} tokens/s")
        for place, (way, run) in enumerate(last.items())
    ]  # fmt: skip
    yield Section(
        f"Generation by vLLM, {result['tasks']} tasks, {result['size']}",
        "The same requests in every way.",
        bars(rows),
        ("way", "tokens/s", "first token p50 s", "p99 s"),
        [
            (way, f"{run['tokens_per_s']:.1f}",
             *(number(run["first_token_s"].get(key)) for key in ("p50", "p99")))
            for way, run in last.items()
        ],
        origin(result),
    )  # fmt: skip


def _distributions(title: str, spreads: Mapping[str, Any], result: Result) -> Section:
    series = []
    for place, (name, spread) in enumerate(spreads.items()):
        points = [(float(key[1:]) / 100, value) for key, value in spread.items() if key[0] == "p"]
        series.append(Series(name, points, place == 0))
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
            (name, *(number(spread.get(key)) for key in SHOWN), str(spread["n"]))
            for name, spread in spreads.items()
        ],
        origin(result),
    )
