"""Time and memory of a search, on a tiny model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import search_cost
from benchmarks.memory import HostMemory


def test_what_is_held_and_held_at_most_are_told_apart():
    memory = HostMemory()
    before = memory.held()
    with memory.peak() as peak:
        kept = np.ones(5 << 20, dtype=np.float64)
        passing = np.ones(10 << 20, dtype=np.float64)
        passing.sort()
        del passing
    held, most = memory.held() - before, peak.nbytes - before
    assert held == pytest.approx(kept.nbytes, abs=8 << 20)
    assert most == pytest.approx(3 * kept.nbytes, abs=8 << 20)


def test_every_stage_is_measured(fine_tunes, tmp_path, monkeypatch):
    monkeypatch.setattr(search_cost, "STEPS", 4)
    monkeypatch.setattr(search_cost, "EVALUATIONS", 9)
    (task, *_) = fine_tunes
    out = tmp_path / "cost.json"
    search_cost.main(task.zoo, task.name, task.base, "cpu", whole=False, out=out)
    result = json.loads(out.read_text())
    assert result["search"]["evaluations"] == 13
    assert result["learning"]["steps"] == 4
    # Four ramps, and a forward pass a step: each once, as everything else ran before the clock.
    assert result["learning"]["forward_passes"] >= 4 + 4
    for timed in (result["search"], result["learning"]):
        assert 0 < timed["forward_s"] < timed["seconds"]
    memory = result["memory"]
    assert list(memory["stages"]) == [
        "load, run base and fine-tune, prepare lessons",
        "collect",
        "search weights",
        "learn",
    ]
    assert memory["peak_nbytes"] == max(s["peak_nbytes"] for s in memory["stages"].values())
    assert memory["base_and_task_vector_nbytes"] > 0
