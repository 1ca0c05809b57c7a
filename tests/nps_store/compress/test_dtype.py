"""Bases and fine-tunes of other dtypes, and compression for another one."""

from __future__ import annotations

import pytest
import torch

from nps_store.compress import Options, TaskSource, compress
from nps_store.evaluate import evaluate_task
from nps_store.store import Store
from tests.nps_store.models import cast

QUICK = {"evaluations": 10, "steps": 10}


@pytest.mark.parametrize("base_dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("task_dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_bases_and_tasks_of_other_dtypes(zoo, tmp_path, base_dtype, task_dtype):
    base = cast(zoo.base, tmp_path / "base", base_dtype)
    task = cast(zoo.dense("two"), tmp_path / "task", task_dtype)
    (stored,) = compress(base, [TaskSource("two", task, zoo.data("two"))], tmp_path / "s.nps",
                         options=Options(keep=0.3, **QUICK))  # fmt: skip
    assert stored.quality.value > 0.5
    with Store.open(tmp_path / "s.nps") as store:
        made = store.materialize("two")
        body = {made[name].dtype for name in made if name.startswith("bert.")}
        assert body == {base_dtype}
        assert evaluate_task(store, "two", data=zoo.data("two")).stored > 0.8


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_compressing_for_another_dtype(zoo, tmp_path, dtype):
    compress(zoo.base, [zoo.source("two")], tmp_path / "s.nps",
             options=Options(keep=0.2, dtype=dtype, **QUICK))  # fmt: skip
    with Store.open(tmp_path / "s.nps") as store:
        assert store.task("two").dtype == dtype
        name = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[dtype]
        assert {tensor.dtype for tensor in store.materialize("two").values()} == {name}
        assert evaluate_task(store, "two", data=zoo.data("two")).stored > 0.8
