"""A small store that comes with the package is read, and its tasks' weights are known."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import torch
from xxhash import xxh3_128

KNOWN = files("nps_store.selftest") / "known.nps"
WEIGHTS = {
    "ranked": "f1b267b52f491db9f8131a52c268a146",
    "mixed": "68786b878734d36ff64868326288b95b",
}
"""xxh3-128 of the names and values of each task's tensors."""


def sections_are_sound() -> str:
    """Every checksum, every section decoded."""
    from formats.writer import verify

    with as_file(KNOWN) as path:
        findings = verify(path, "decode")
    if findings:
        raise AssertionError(findings[0].message)
    return "no damage"


def weights_are_known() -> str:
    """What the tasks' checkpoints would hold."""
    from nps_store.store import Store

    with as_file(KNOWN) as path, Store.open(path) as store:
        found = {name: digest(store.materialize(name)) for name in store.tasks}
    for name, expected in WEIGHTS.items():
        if found.get(name) != expected:
            raise AssertionError(f"task {name!r}: expected {expected}, got {found.get(name)}")
    return f"{len(found)} tasks, bit for bit"


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """Of names and raw little-endian values."""
    state = xxh3_128()
    for name in sorted(tensors):
        raw = tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy()
        state.update(name.encode())
        state.update(np.ascontiguousarray(raw).data)
    return state.hexdigest()
