"""Loads a server with each mix of tasks, and sums up what was seen."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from rich.table import Table

from benchmarks.distribution import distribution
from benchmarks.load.plan import MIXES, Planned, plan
from benchmarks.load.routes import ROUTES
from benchmarks.load.send import Seen, Sender
from benchmarks.machine import circumstances
from nps_store.calibration import read_rows
from nps_store.errors import BadOptionError, InputOutputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA = "nps.bench-serve/1"
TEXTS = (
    "GNU Standard C++ Library v3",
    "lightweight database migration tool for SQLAlchemy",
    "What is the capital of France, and what is it known for?",
    "Write a short note to a colleague about the meeting tomorrow.",
)


@dataclass(frozen=True)
class Load:
    """What to send.

    Attributes:
        route: One of `ROUTES`.
        mixes: Of tasks, one after the other.
        models: Tasks, the most popular first; none: those that the server lists.
        rate: Arrivals a second.
        seconds: For each mix.
        texts: What is asked.
        max_tokens: Of an answer.
        timeout_s: Of a request.
        seed: Of arrivals, tasks and texts.
    """

    route: str
    mixes: tuple[str, ...]
    models: tuple[str, ...]
    rate: float
    seconds: float
    texts: tuple[str, ...] = TEXTS
    max_tokens: int = 32
    timeout_s: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check.

        Raises:
            BadOptionError: A route or mix that there is not, or no time to measure in.
        """
        for given, known in (((self.route,), ROUTES), (self.mixes, MIXES)):
            for name in given:
                if name not in known:
                    raise BadOptionError(f"no {name!r}; expected one of {', '.join(known)}")
        if self.rate <= 0 or self.seconds <= 0 or not self.texts:
            raise BadOptionError("rate and seconds must be positive, and there must be a text")


def texts_of(path: Path) -> tuple[str, ...]:
    """The texts of JSON lines."""
    return tuple(row.text for row in read_rows(path))


def measure(url: str, load: Load, *, api_key: str | None = None) -> dict[str, Any]:
    """Put the load on a server.

    Raises:
        InputOutputError: The server does not list its models.
    """
    runs = asyncio.run(_runs(url, load, api_key))
    return {
        "schema": SCHEMA,
        "command": f"nps bench serve {url} --route {load.route}",
        **circumstances(),
        "seed": load.seed,
        "url": url,
        "route": load.route,
        "offered_per_s": load.rate,
        "runs": runs,
    }


async def _runs(url: str, load: Load, api_key: str | None) -> list[dict[str, Any]]:
    sender = Sender(
        url, load.route,
        max_tokens=load.max_tokens, timeout_s=load.timeout_s, api_key=api_key,
    )  # fmt: skip
    try:
        models = load.models or tuple(await sender.models())
        for model in models:  # each has been loaded once before anything counts
            await sender.ask(Planned(0.0, model, load.texts[0]), time.perf_counter())
        return [
            {"mix": mix, "models": models, **summary(await sender.run(_plan(load, models, mix)))}
            for mix in load.mixes
        ]
    except httpx.HTTPError as error:
        raise InputOutputError(f"{url}/v1/models: {error or type(error).__name__}") from error
    finally:
        await sender.close()


def _plan(load: Load, models: tuple[str, ...], mix: str) -> Any:  # noqa: ANN401
    return plan(models, load.texts, mix=mix, rate=load.rate, seconds=load.seconds, seed=load.seed)


def summary(seen: Sequence[Seen]) -> dict[str, Any]:
    """Counts of all outcomes; times of what succeeded, from the planned arrival on."""
    good = [each for each in seen if each.outcome == "200"]
    first = [1e3 * each.first_s for each in good if each.first_s is not None]
    elapsed = max((each.planned.at_s + each.end_s for each in seen), default=0.0)
    tasks = sorted({each.planned.model for each in seen})
    return {
        "n_requests": len(seen),
        "outcomes": dict(sorted(Counter(each.outcome for each in seen).items())),
        "n_errors": len(seen) - len(good),
        "seconds": elapsed,
        "answered_per_s": len(good) / elapsed if elapsed else 0.0,
        "tokens_per_s": sum(each.n_tokens for each in good) / elapsed if elapsed else 0.0,
        "milliseconds": distribution(1e3 * each.end_s for each in good),
        "first_token_milliseconds": distribution(first),
        "milliseconds_by_task": {
            task: distribution(1e3 * each.end_s for each in good if each.planned.model == task)
            for task in tasks
        },
        "generator_lag_milliseconds": distribution(1e3 * each.lag_s for each in seen),
    }


def table(result: dict[str, Any]) -> Table:
    """A line for each mix."""
    made = Table("mix", "tasks", "requests", "errors", "offered/s", "answered/s", "tokens/s",
                 "p50 ms", "p99 ms", "p99.9 ms", "generator late p99 ms")  # fmt: skip
    for run in result["runs"]:
        ms, lag = run["milliseconds"], run["generator_lag_milliseconds"]
        times = (f"{ms[key]:.1f}" if key in ms else "-" for key in ("p50", "p99", "p99.9"))
        made.add_row(
            run["mix"], str(len(run["models"])), str(run["n_requests"]), str(run["n_errors"]),
            f"{result['offered_per_s']:g}", f"{run['answered_per_s']:.1f}",
            f"{run['tokens_per_s']:.0f}", *times, f"{lag.get('p99', 0):.1f}",
        )  # fmt: skip
    return made
