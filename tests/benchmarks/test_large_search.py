"""The search of a synthetic pair, at a size that a test can afford."""

from __future__ import annotations

import json

from benchmarks import large_search, search_cost
from benchmarks.lm_training import Size
from benchmarks.pair import make_pair
from nps_store.checkpoint import Checkpoint

TINY = Size(vocab=512, context=256, hidden=64, layers=2, heads=4, kv_heads=2, mlp=128)


def test_the_pair_is_a_fine_tune_of_its_base(tmp_path):
    numel = make_pair(tmp_path, TINY)
    base, own = Checkpoint(tmp_path / "base"), Checkpoint(tmp_path / "fine-tune")
    assert numel == sum(base.tensor(name).numel() for name in base.names)
    for name in base.names:
        weights = base.tensor(name).float()
        assert 0 < (own.tensor(name).float() - weights).norm() < 0.05 * weights.norm()


def test_the_search_is_measured_and_the_pair_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(search_cost, "EVALUATIONS", 3)
    monkeypatch.setattr(search_cost, "STEPS", 2)
    monkeypatch.setattr(search_cost, "MEMORY_EVALUATIONS", 1)
    monkeypatch.setattr(search_cost, "_apart", lambda function, *args: function(*args))
    out = tmp_path / "result.json"
    large_search.run(tmp_path, TINY, device="cpu", out=out)
    result = json.loads(out.read_text())
    assert result["search"]["forward_s"] > 0
    assert set(result["memory"]["stages"]) > {"collect", "learn"}
    assert list(tmp_path.iterdir()) == [out]
