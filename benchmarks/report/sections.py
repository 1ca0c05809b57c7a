"""Which results have which sections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.report.recipes import fusion, transfer
from benchmarks.report.sizes import footprint, rate_quality, stored_quality
from benchmarks.report.speeds import gpu_switches, load, switches, vllm_serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.report.section import Result, Section

SECTIONS: Mapping[str, Callable[[Result], Iterator[Section]]] = {
    "nps.bench-footprint/1": footprint,
    "nps.bench-fusion/1": fusion,
    "nps.bench-quality/1": rate_quality,
    "nps.bench-serve/1": load,
    "nps.bench-shipped/1": stored_quality,
    "nps.bench-stored-quality/1": stored_quality,
    "nps.bench-switch-gpu/1": gpu_switches,
    "nps.bench-switch/1": switches,
    "nps.bench-transfer/1": transfer,
    "nps.bench-vllm-serving/1": vllm_serving,
}
"""By the schema of a result file."""
