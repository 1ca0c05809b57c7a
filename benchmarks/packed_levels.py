"""What packed levels take beside their entropy, and how fast they are coded."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from formats.codecs import zstd
from formats.decode import decode_record
from formats.encode import encode_record
from formats.records import DenseLevels

NUMEL = 1 << 23
STEPS = {"normal": (2.03, 1.61, 1.07), "student-t, 4 degrees of freedom": (2.8, 2.15, 1.4)}
"""Steps in units of the distribution, for about 1.2, 1.5 and 2 bits of entropy."""


def measure() -> list[dict[str, Any]]:
    """Plainly rounded levels of one long tensor of each distribution and step."""
    return [_measure(tails, step) for tails, steps in STEPS.items() for step in steps]


def _measure(tails: str, step: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    draws = rng.standard_normal(NUMEL) if tails == "normal" else rng.standard_t(4, NUMEL)
    levels = np.rint(draws / step).clip(-127, 127).astype(np.int8)
    counts = np.unique(levels, return_counts=True)[1]
    entropy_nbytes = float((counts * np.log2(NUMEL / counts)).sum()) / 8
    record = DenseLevels(NUMEL, levels, np.ones(1, np.float32))
    start = time.perf_counter()
    entry, payload = encode_record(record, dtype="F32")
    encoded = time.perf_counter()
    decode_record(entry, payload, numel=NUMEL, dtype="F32")
    decoded = time.perf_counter()
    plain, _ = encode_record(record, dtype="F32", with_outliers=False)
    nbytes = entry.nbytes
    if "outliers" in payload:  # which writers compress by the section
        nbytes += len(zstd.compress(payload["outliers"])) - len(payload["outliers"])
    return {
        "tails": tails,
        "entropy_bits": entropy_nbytes * 8 / NUMEL,
        "stored_bits": nbytes * 8 / NUMEL,
        "over_entropy": nbytes / entropy_nbytes,
        "without_outliers": plain.nbytes / entropy_nbytes,
        "n_outliers": entry.n_outliers or 0,
        "encode_levels_per_s": NUMEL / (encoded - start),
        "decode_levels_per_s": NUMEL / (decoded - encoded),
    }
