"""A model directory is read as it is, or refused with a reason."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from nps_store.checkpoint import Checkpoint, is_finite, tensor_hash
from nps_store.errors import (
    ModelDirectoryMissingError,
    NonFiniteWeightError,
    NotAModelDirectoryError,
)
from tests.nps_store.models import cast, edit, same, shard, weights

INDEX = "model.safetensors.index.json"


@pytest.fixture
def copy(zoo, tmp_path):
    """A directory of the test's own."""
    return shutil.copytree(zoo.dense("two"), tmp_path / "copy")


@pytest.mark.parametrize("n_shards", [1, 3])
def test_reads_what_is_there_sharded_or_not(zoo, tmp_path, n_shards):
    source = zoo.dense("two")
    directory = source if n_shards == 1 else shard(source, tmp_path / "sharded", n_shards)
    checkpoint = Checkpoint(directory)
    expected = weights(source)
    assert list(checkpoint.names) == sorted(expected)
    assert same({name: checkpoint.tensor(name) for name in checkpoint.names}, expected)
    for name, tensor in expected.items():
        assert checkpoint.shape(name) == tuple(tensor.shape)
        assert checkpoint.dtype(name) == "F32"
    assert checkpoint.config["architectures"] == ["BertForSequenceClassification"]


@pytest.mark.parametrize(("dtype", "name"), [(torch.bfloat16, "BF16"), (torch.float16, "F16")])
def test_dtypes_have_the_names_of_safetensors(zoo, tmp_path, dtype, name):
    checkpoint = Checkpoint(cast(zoo.base, tmp_path / "cast", dtype))
    assert {checkpoint.dtype(tensor) for tensor in checkpoint.names} == {name}
    assert checkpoint.tensor(checkpoint.names[0]).dtype == dtype


def test_a_missing_directory(tmp_path):
    with pytest.raises(ModelDirectoryMissingError, match="nowhere: no such directory"):
        Checkpoint(tmp_path / "nowhere")


def write_index(copy, content):
    (copy / "model.safetensors").rename(copy / "part.safetensors")
    (copy / INDEX).write_text(content if isinstance(content, str) else json.dumps(content))


BREAKAGES = {
    "no config": lambda d: (d / "config.json").unlink(),
    "config is no JSON": lambda d: (d / "config.json").write_text("{"),
    "config is a list": lambda d: (d / "config.json").write_text("[1]"),
    "config is binary": lambda d: (d / "config.json").write_bytes(b"\xff\xfe\x00"),
    "no weights": lambda d: (d / "model.safetensors").unlink(),
    "weights are a pickle": lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"),
    "weights are text": lambda d: (d / "model.safetensors").write_text("hello"),
    "weights are empty": lambda d: (d / "model.safetensors").write_bytes(b""),
    "weights are cut": lambda d: os.truncate(d / "model.safetensors", 20_000),
    "index is no JSON": lambda d: write_index(d, "{"),
    "index has no map": lambda d: write_index(d, {}),
    "index has an empty map": lambda d: write_index(d, {"weight_map": {}}),
    "index names a number": lambda d: write_index(d, {"weight_map": {"a": 5}}),
    "shard is missing": lambda d: write_index(d, {"weight_map": {"a": "gone.safetensors"}}),
    "shard is elsewhere": lambda d: write_index(d, {"weight_map": {"a": "../x.safetensors"}}),
    "tensor is not in its shard": lambda d: write_index(
        d, {"weight_map": {"a": "part.safetensors"}}
    ),
    "dtype is unknown": lambda d: save_file(
        {"a": torch.zeros(4, dtype=torch.float8_e4m3fn)}, d / "model.safetensors"
    ),
}


@pytest.mark.parametrize("breakage", sorted(BREAKAGES))
def test_what_is_no_model_directory_is_refused(copy, breakage):
    BREAKAGES[breakage](copy)
    with pytest.raises(NotAModelDirectoryError) as caught:
        Checkpoint(copy)
    assert str(caught.value).startswith(str(copy))


def test_a_pickle_is_named(copy):
    BREAKAGES["weights are a pickle"](copy)
    with pytest.raises(NotAModelDirectoryError, match=r"pytorch_model.bin: convert it"):
        Checkpoint(copy)


def test_a_tensor_in_two_shards_is_refused(zoo, tmp_path):
    directory = shard(zoo.dense("two"), tmp_path / "sharded", 2)
    first = "model-00001-of-00002.safetensors"
    shutil.copy(directory / first, directory / "again.safetensors")
    index = json.loads((directory / INDEX).read_text())
    index["weight_map"]["more"] = "again.safetensors"
    (directory / INDEX).write_text(json.dumps(index))
    with pytest.raises(NotAModelDirectoryError, match="two shards"):
        Checkpoint(directory)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(zoo, tmp_path, value):
    name = "bert.encoder.layer.0.output.dense.weight"

    def change(tensors):
        tensors[name][3, 4] = value

    checkpoint = Checkpoint(edit(zoo.dense("two"), tmp_path / "bad", change))
    with pytest.raises(NonFiniteWeightError, match=f"{name}.* holds 1 NaN or Inf"):
        checkpoint.tensor(name)
    assert checkpoint.tensor("classifier.weight").isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_not_finite_is_found_wherever_it_stands(dtype, value):
    for numel in (1, 7, 1000, 70_001):
        for position in {0, numel // 2, numel - 1}:
            tensor = torch.linspace(-9, 9, numel).to(dtype)
            assert is_finite(tensor)
            tensor[position] = value
            assert not is_finite(tensor)
    assert is_finite(torch.empty(0, 3, dtype=dtype))


def test_files_are_those_that_belong_to_the_model(copy):
    for name in (
        "chat_template.jinja", "spiece.model", "1_Pooling/config.json", "modules.json",
        "training_args.bin", "trainer_state.json", "README.md", ".cache/x.json",
        "checkpoint-500/tokenizer.json", "a/b/c.json", INDEX,
    ):  # fmt: skip
        path = copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"weight_map": {"classifier.bias": "model.safetensors"}}')
    found = Checkpoint(copy).files()
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "vocab.txt"}
    extra = {"chat_template.jinja", "spiece.model", "1_Pooling/config.json", "modules.json"}
    assert set(found) == {"config.json"} | tokenizer | extra
    assert all(path.is_file() for path in found.values())


def test_the_hash_is_of_the_bits():
    zero, negative_zero = torch.zeros(3), -torch.zeros(3)
    assert tensor_hash(zero) == tensor_hash(torch.zeros(3))
    assert tensor_hash(zero) != tensor_hash(negative_zero)
    assert tensor_hash(zero) == tensor_hash(torch.zeros(3, dtype=torch.int32))
    matrix = torch.arange(6.0).reshape(2, 3)
    assert tensor_hash(matrix.t().contiguous().t()) == tensor_hash(matrix)
    assert len(tensor_hash(torch.zeros(0))) == len(tensor_hash(torch.tensor(1.0))) == 32
