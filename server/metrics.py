"""Prometheus metrics of one application: base units, `_total` for counters, a registry of its own.

The `task` label only ever takes names of the store's own tasks, since a client could otherwise
create time series without limit by asking for models that do not exist.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

UNKNOWN_TASK = "_unknown"

_SECONDS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)
_INPUTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def package_version() -> str:
    """The installed version, or `unknown` when run from a tree that is not installed."""
    try:
        return version("nps-store")
    except PackageNotFoundError:
        return "unknown"


class Metrics:
    """What is counted, by name. Thread-safe, as prometheus-client is."""

    def __init__(self, *, engine: str) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "nps_requests", "Answered requests.", ["route", "task", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "nps_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "nps_queue_seconds",
            "From a request's arrival in the queue to its first batch.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_depth = Gauge(
            "nps_queue_depth", "Inputs accepted and not yet answered.", registry=registry
        )
        self.batch_inputs = Histogram(
            "nps_batch_inputs", "Inputs in a forward pass.", buckets=_INPUTS, registry=registry
        )
        self.tokens = Counter("nps_tokens", "Tokens of inputs.", ["task"], registry=registry)
        self.swap_seconds = Histogram(
            "nps_swap_seconds",
            "Switches of the weights in place, those that move none left out.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.materialize_seconds = Histogram(
            "nps_materialize_seconds",
            "Reading, verifying and decoding a task into its resident form.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.materialize_bytes = Counter(
            "nps_materialize_bytes", "Resident bytes made by loads.", registry=registry
        )
        self.cache_hits = Counter(
            "nps_weight_cache_hits", "Requests whose task was resident.", registry=registry
        )
        self.cache_misses = Counter(
            "nps_weight_cache_misses", "Requests that had to wait for a load.", registry=registry
        )
        self.evictions = Counter(
            "nps_weight_cache_evictions", "Tasks evicted for room.", registry=registry
        )
        self.cache_bytes = Gauge(
            "nps_weight_cache_bytes", "Bytes that tasks occupy beside the base.", registry=registry
        )
        self.tasks_ready = Gauge("nps_tasks_ready", "Tasks resident.", registry=registry)
        self.checksum_failures = Counter(
            "nps_checksum_failures", "Loads refused because of a checksum.", registry=registry
        )
        self.engine_failures = Counter(
            "nps_engine_failures", "Batches that the engine failed.", registry=registry
        )
        build = Gauge("nps_build_info", "Always 1.", ["version", "engine"], registry=registry)
        build.labels(version=package_version(), engine=engine).set(1)

    def count_lookup(self, *, hit: bool) -> None:
        """Count a request's look at the resident tasks."""
        (self.cache_hits if hit else self.cache_misses).inc()

    def observe_load(self, seconds: float, nbytes: int) -> None:
        """Record a finished load."""
        self.materialize_seconds.labels(stage="load").observe(seconds)
        self.materialize_bytes.inc(nbytes)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)
