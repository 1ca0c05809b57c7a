"""The benchmark's requests and files are what its table says they are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from safetensors.torch import load_file

from benchmarks.lm_training import Size
from benchmarks.vllm_load import zipf_mix
from benchmarks.vllm_ways import RANK, kept_fraction, make_files
from nps_store.store import Store
from server.engines.vllm.fit import check_fit


def test_the_first_task_is_the_most_popular_and_lengths_are_mixed():
    asked = zipf_mix(4000, n_tasks=8, longest=1024, rate=None)
    counts = np.bincount([each.task for each in asked])
    assert counts[0] == pytest.approx(8 * counts[7], rel=0.25)
    lengths = np.array([each.n_tokens for each in asked])
    assert (lengths.min(), lengths.max()) == (16, 1024)
    assert np.median(lengths) == pytest.approx(128, rel=0.1)
    assert zipf_mix(4000, n_tasks=8, longest=1024, rate=None) == asked


def test_arrivals_at_a_rate():
    asked = zipf_mix(1000, n_tasks=2, longest=16, rate=50.0)
    assert asked[-1].at_s == pytest.approx(1000 / 50, rel=0.15)
    assert all(one.at_s < other.at_s for one, other in pairwise(asked))


def test_tasks_fit_the_base_and_adapters_its_projections(tmp_path):
    size = Size(vocab=256, context=32, hidden=256, layers=2, heads=4, kv_heads=4, mlp=256)
    make_files(tmp_path, size, n_tasks=3, keep=0.005, device="cpu")
    with Store.open(tmp_path / "tasks.nps") as store:
        assert store.tasks == ("task0", "task1", "task2")
        for name in store.tasks:
            check_fit(store, name)
    assert kept_fraction(tmp_path) == pytest.approx(0.005, rel=0.2)
    adapter = load_file(tmp_path / "adapters" / "0" / "adapter_model.safetensors")
    assert len(adapter) == 2 * 7 * size.layers
    down = adapter["base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"]
    assert tuple(down.shape) == (RANK, size.mlp)
