"""Adapters that peft wrote, against what peft itself makes of them and their bases (`generate`)."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from formats import Container
from formats.records import Factors
from nps_store import Store
from nps_store.adapters import AdapterCheckpoint
from nps_store.checkpoint import Checkpoint
from nps_store.compress import TaskSource, compress
from nps_store.records import from_bits

DATA = Path(__file__).parent / "data"
CASES = {
    "lora": "bert",
    "rslora": "bert",
    "body": "bert",
    "ia3": "bert",
    "gpt2-lora": "gpt2",
    "gpt2-ia3": "gpt2",
}
METHODS = {name: "ia3" if "ia3" in name else "lora" for name in CASES}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    for base in ("bert", "gpt2"):
        tasks = [TaskSource(name, DATA / name, None) for name in CASES if CASES[name] == base]
        compress(DATA / base, tasks, folder / f"{base}.nps")
    return {name: folder / f"{base}.nps" for name, base in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_merged_weights_are_those_of_peft(stores, name):
    """To the last bits only, as another machine's matrix product may sum in another order; those
    that no factor changes exactly."""
    expected = load_file(DATA / f"{name}.merged.safetensors")
    changed = AdapterCheckpoint(DATA / name, Checkpoint(DATA / CASES[name])).factors
    with Store.open(stores[name]) as store:
        found = store.materialize(name)
        assert store.task(name).meta["method"] == METHODS[name]
    assert expected.keys() <= found.keys()
    for key, tensor in expected.items():
        if any(key.endswith(base_name) for base_name in changed):
            torch.testing.assert_close(found[key], tensor, rtol=0, atol=1e-6)
        else:
            assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize("name", CASES)
def test_merged_weights_are_the_published_formulas(stores, name):
    """Bit by bit, on one machine: B A alpha / r added, or rows or columns multiplied."""
    settings = json.loads((DATA / name / "adapter_config.json").read_text())
    adapter = {
        key.removeprefix("base_model.model."): tensor
        for key, tensor in load_file(DATA / name / "adapter_model.safetensors").items()
    }
    with Store.open(stores[name]) as store:
        prefix = store.task(name).directory.prefix
        found = store.materialize(name)
        base = {f"{prefix}{key}": store.base.tensor(key) for key in store.base.names}
    turn = (lambda t: t.T) if settings.get("fan_in_fan_out") else (lambda t: t)
    modules = {key.rpartition(".lora_")[0] for key in adapter if ".lora_" in key}
    for module in modules:
        rank, alpha = pattern(settings, module)
        scale = alpha / (math.sqrt(rank) if settings["use_rslora"] else rank)
        left, right = (adapter[f"{module}.lora_{side}.weight"] for side in "BA")
        expected = base[f"{module}.weight"] + turn(left @ right) * scale
        assert torch.equal(found[f"{module}.weight"], expected)
    scaled = {key.removesuffix(".ia3_l"): each for key, each in adapter.items() if "ia3" in key}
    for module, factors in scaled.items():
        expected = base[f"{module}.weight"] * turn(factors)
        assert torch.equal(found[f"{module}.weight"], expected)
        if factors.shape[1] == 1:
            bias = base[f"{module}.bias"] * factors.flatten()
            assert torch.equal(found[f"{module}.bias"], bias)
    assert len(modules) + len(scaled) > 1


def pattern(settings, module):
    ranks, alphas = settings["rank_pattern"], settings["alpha_pattern"]
    rank = next((v for k, v in ranks.items() if re.search(rf"{k}$", module)), settings["r"])
    alpha = next((v for k, v in alphas.items() if re.search(rf"{k}$", module)), None)
    return rank, settings["lora_alpha"] if alpha is None else alpha


@pytest.mark.parametrize("name", CASES)
def test_what_is_stored_are_the_factors_themselves(stores, name):
    adapter = load_file(DATA / name / "adapter_model.safetensors")
    values = {tensor.numpy().tobytes() for tensor in adapter.values()}
    with Container.open(stores[name]) as container:
        reader = container.task_reader(name)
        for entry in reader:
            record = reader.record(entry)
            if isinstance(record, Factors):
                found = from_bits(record.factors, record.dtype).numpy()
                if record.rank:
                    columns = record.numel // record.rows
                    outer = columns if record.form == "transposed" else record.rows
                    left, right = np.split(found, [outer * record.rank])
                    assert {left.tobytes(), right.tobytes()} <= values
                else:
                    assert found.tobytes() in values
        kinds = {entry.encoding for entry in reader}
        assert any(kind.startswith("factors/") for kind in kinds)
        assert not any("xor" in kind for kind in kinds) or name == "body"


def test_an_adapter_takes_about_what_its_file_does(stores):
    with Store.open(stores["lora"]) as store:
        assert store.task("lora").dense_nbytes == (
            (DATA / "lora" / "adapter_model.safetensors").stat().st_size
        )
        assert store.task("lora").nbytes < 3 * store.task("lora").dense_nbytes
        assert store.files("lora").read("adapter/adapter_config.json") == (
            (DATA / "lora" / "adapter_config.json").read_bytes()
        )
        config = store.task("lora").config
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
