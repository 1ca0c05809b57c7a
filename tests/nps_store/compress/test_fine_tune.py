"""A fine-tune beside its base: the task vector, and what is no part of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nps_store.checkpoint import Checkpoint
from nps_store.compress.fine_tune import FineTune
from nps_store.errors import NonFiniteWeightError
from tests.nps_store.models import cast, edit, grow, weights


def fine_tune(base, directory, **options):
    return FineTune("t", Checkpoint(directory), Checkpoint(base), **options)


@pytest.mark.parametrize("base_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("task_dtype", [torch.float32, torch.bfloat16])
def test_the_task_vector_is_the_difference_every_time(zoo, tmp_path, base_dtype, task_dtype):
    base = cast(zoo.base, tmp_path / "base", base_dtype)
    task = cast(zoo.dense("two"), tmp_path / "task", task_dtype)
    made = fine_tune(base, task)
    before, own = weights(base), weights(task)
    for _ in range(3):  # the search streams over it again and again
        vectors = dict(made.vectors())
        assert vectors.keys() == before.keys()
        for name, vector in vectors.items():
            expected = own[f"bert.{name}"].float() - before[name].float()
            assert np.array_equal(vector, expected.reshape(-1).numpy())
    assert made.hash() == fine_tune(base, task).hash()


def test_in_another_dtype_the_difference_is_to_the_rounded_base(zoo):
    made = fine_tune(zoo.base, zoo.dense("two"), dtype="BF16")
    before, own = weights(zoo.base), weights(zoo.dense("two"))
    for name, vector in made.vectors():
        expected = own[f"bert.{name}"] - before[name].bfloat16().float()
        assert np.array_equal(vector, expected.reshape(-1).numpy())
        assert made.work_dtype(name) == "BF16"


def test_appended_rows_and_integers_are_no_part_of_it(zoo, tmp_path):
    name = "embeddings.word_embeddings.weight"
    grown = grow(zoo.dense("two"), tmp_path / "grown", 3)
    made = fine_tune(zoo.base, grown)
    assert len(dict(made.vectors())[name]) == weights(zoo.base)[name].numel()
    assert torch.equal(made.rows()[name], weights(grown)[f"bert.{name}"][-3:])

    base = edit(zoo.base, tmp_path / "base", lambda t: t.update(ids=torch.arange(4)))
    task = edit(
        zoo.dense("two"), tmp_path / "t", lambda t: t.update({"bert.ids": torch.ones(4).long()})
    )
    assert "ids" not in dict(fine_tune(base, task).vectors())


def test_the_hash_tells_fine_tunes_apart(zoo, tmp_path):
    made = fine_tune(zoo.base, zoo.dense("two")).hash()
    assert made != fine_tune(zoo.base, zoo.dense("three")).hash()
    nudged = edit(zoo.dense("two"), tmp_path / "n", lambda t: t["classifier.bias"].add_(1e-6))
    assert made != fine_tune(zoo.base, nudged).hash()
    size = sum(tensor.nbytes for tensor in weights(zoo.dense("two")).values())
    assert fine_tune(zoo.base, zoo.dense("two")).dense_nbytes() == size


@pytest.mark.parametrize("where", ["base", "task"])
def test_values_beyond_the_range_of_the_dtype_are_refused(zoo, tmp_path, where):
    name = "pooler.dense.bias"
    if where == "base":
        base = edit(zoo.base, tmp_path / "base", lambda t: t[name].fill_(1e5))
        made = fine_tune(base, zoo.dense("two"), dtype="F16")
        with pytest.raises(NonFiniteWeightError, match=f"{name!r} holds values beyond"):
            dict(made.vectors())
    else:
        task = edit(zoo.dense("two"), tmp_path / "task", lambda t: t[f"bert.{name}"].fill_(1e5))
        made = fine_tune(zoo.base, task, dtype="F16")
        with pytest.raises(NonFiniteWeightError, match="beyond the range of F16"):
            made.tensor(f"bert.{name}")
    assert dict(fine_tune(zoo.base, zoo.dense("two"), dtype="F16").vectors())
