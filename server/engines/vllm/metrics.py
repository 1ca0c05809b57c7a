"""Prometheus metrics of this engine, beside vLLM's own and on the same page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from prometheus_client import REGISTRY, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client.core import Metric

    from server.engines.vllm.observed_engine import Seen

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

_BY_TASK = {
    "nps_switches": ("n_switches", "Switches of the weights to a task."),
    "nps_switch_seconds": ("switch_s", "Seconds of writing a task's weights."),
    "nps_switch_wait_seconds": ("wait_s", "Seconds that switches waited for a task's bytes."),
    "nps_weight_cache_hits": ("n_hits", "Switches that found the task prepared."),
}


class Metrics:
    """What an API server process counts, where vLLM looks for it when it has several of them."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Once a process."""
        self._requests = Counter(
            "nps_requests", "Requests that ended.", ["task", "outcome"], registry=registry
        )
        self._tokens = Counter("nps_tokens", "Tokens by kind.", ["task", "kind"], registry=registry)
        self._queue_seconds = Histogram(
            "nps_queue_seconds", "From arrival to the first step.", ["task"], buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._first_token_seconds = Histogram(
            "nps_first_token_seconds", "From arrival to the first token.", ["task"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip

    def count(self, seen: Seen) -> None:
        """Take in a request that ended."""
        self._requests.labels(seen.task, seen.outcome).inc()
        self._tokens.labels(seen.task, "prompt").inc(seen.n_prompt_tokens)
        self._tokens.labels(seen.task, "cached").inc(seen.n_cached_tokens)
        self._tokens.labels(seen.task, "generated").inc(seen.n_generated_tokens)
        if seen.queue_s is not None:
            self._queue_seconds.labels(seen.task).observe(seen.queue_s)
        if seen.first_token_s is not None:
            self._first_token_seconds.labels(seen.task).observe(seen.first_token_s)


def exposition(ours: CollectorRegistry, switches: Sequence[Mapping[str, Any]]) -> bytes:
    """Everything in Prometheus' text format.

    Args:
        ours: vLLM's registry, in which `Metrics` are, too.
        switches: What each worker answered to `task_statistics`.
    """
    of_workers = CollectorRegistry()
    of_workers.register(Switches(switches))
    return generate_latest(ours) + generate_latest(of_workers)


class Switches(Collector):
    """Counts that the workers keep. All switch at the same time: the first one's are shown, and of
    bytes the sum.

    Attributes:
        NONE: What a worker answers that has not switched yet.
    """

    NONE: ClassVar[Mapping[str, Any]] = {"by_task": {}, "n_evicted": 0, "prepared_nbytes": 0}

    def __init__(self, workers: Sequence[Mapping[str, Any]]) -> None:
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        """As of when they were asked."""
        yield from self._by_task(self._workers[0]["by_task"])
        evicted = self._workers[0]["n_evicted"]
        yield CounterMetricFamily("nps_weight_cache_evictions", "Tasks evicted.", value=evicted)
        held = sum(worker["prepared_nbytes"] for worker in self._workers)
        yield GaugeMetricFamily("nps_weight_cache_bytes", "Bytes of prepared tasks.", value=held)

    def _by_task(self, counts: Mapping[str, Mapping[str, float]]) -> Iterator[Metric]:
        for name, (field, what) in _BY_TASK.items():
            family = CounterMetricFamily(name, what, labels=["task"])
            for task, of_task in counts.items():
                family.add_metric([task], of_task[field])
            yield family
