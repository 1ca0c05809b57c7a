"""Adapters in a store: put in place, reverted, merged; and what is refused of them."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from nps_store import LiveBase, Store, TaskSwitcher
from nps_store.compress import Options, TaskSource, add, compress
from nps_store.errors import (
    BadOptionError,
    NonFiniteWeightError,
    NotAModelDirectoryError,
    NpsError,
    UnrelatedModelError,
    UnsupportedTaskError,
)
from nps_store.export import export_task
from nps_store.recipes import Recipe
from nps_store.recipes.writing import add_recipe
from tests.nps_store.adapters.written import LAYER, ia3, lora, write
from tests.nps_store.models import cast, probabilities, same, weights

TEXTS = ["a tool for the network", "the small game", "image", "a library of the server"]
ADAPTERS = {"lora": lora, "ia3": ia3}


@pytest.fixture(scope="module")
def folder(zoo, tmp_path_factory):
    """A store of a fine-tune and two adapters, which lie beside it."""
    folder = tmp_path_factory.mktemp("adapters")
    adapters = [
        TaskSource(name, write(folder / name, *made()), None) for name, made in ADAPTERS.items()
    ]
    tasks = [zoo.source("three", calibrated=False), *adapters]
    compress(zoo.base, tasks, folder / "all.nps", options=Options(keep=0.1))
    return folder


@pytest.mark.parametrize("name", ADAPTERS)
def test_in_place_it_answers_as_its_export_does_alone(folder, name, tmp_path):
    with Store.open(folder / "all.nps") as store:
        export_task(store, name, tmp_path / "out")
        live = LiveBase.load(store)
        prepared = live.prepare(name)
        other = live.prepare("three")
        for _ in range(2):
            live.switch_(prepared)
            found = live.run(prepared, prepared.encode(TEXTS))
            live.switch_(other)
        assert live.verify()
        assert same(weights(tmp_path / "out"), store.materialize(name))
    assert not (tmp_path / "out" / "adapter_config.json").exists()  # it is a whole model
    torch.testing.assert_close(found, probabilities(tmp_path / "out", TEXTS))
    assert found.shape == (len(TEXTS), 3)


def test_a_users_model_takes_it(folder, zoo):
    with Store.open(folder / "all.nps") as store:
        model = AutoModelForSequenceClassification.from_pretrained(zoo.base, num_labels=3)
        switcher = TaskSwitcher(model, store)
        expected = store.materialize("lora")
        name = f"{LAYER.format(0, 'query')}.weight"
        for _ in range(2):
            switcher.switch_("lora")
            assert torch.equal(model.state_dict()[name], expected[name])
            switcher.switch_(None)
            base = store.base.tensor(name.removeprefix("bert."))
            assert torch.equal(model.state_dict()[name], base)


def test_it_is_merged_with_others(folder, tmp_path):
    path = tmp_path / "own.nps"
    path.write_bytes((folder / "all.nps").read_bytes())
    members = {"three": (0.5,), "lora": (0.25,), "ia3": (1.0,)}
    assert add_recipe(path, "m", Recipe(members)) == ("m@three", "m@lora", "m@ia3")
    with Store.open(path) as store:
        merged = store.materialize("m@lora")
        parts = {name: store.materialize(name) for name in members}
        for base_name in store.base.names:
            base = store.base.tensor(base_name)
            if not base.is_floating_point():
                continue
            own = f"bert.{base_name}"
            expected = base + sum(w * (parts[n][own] - base) for n, (w,) in members.items())
            torch.testing.assert_close(merged[own], expected)
        assert torch.equal(merged["classifier.weight"], parts["lora"]["classifier.weight"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_bases_are_rounded_once(zoo, tmp_path, dtype):
    base = cast(zoo.base, tmp_path / "base", dtype)
    settings, tensors = lora()
    adapter = write(tmp_path / "lora", settings, {k: v.to(dtype) for k, v in tensors.items()})
    compress(base, [TaskSource("lora", adapter, None)], tmp_path / "a.nps")
    module = LAYER.format(1, "value")
    left, right = (tensors[f"{module}.lora_{side}.weight"].to(dtype).float() for side in "BA")
    with Store.open(tmp_path / "a.nps") as store:
        found = store.materialize("lora")[f"{module}.weight"]
        old = store.base.tensor(f"{module[len('bert.') :]}.weight")
    assert torch.equal(found, (old.float() + left @ right * 2.0).to(dtype))


def test_it_is_added_to_an_embedded_base_in_processes(zoo, folder, tmp_path):
    path = tmp_path / "own.nps"
    compress(zoo.base, [zoo.source("three", calibrated=False)], path, embed_base=True,
             options=Options(keep=0.1))  # fmt: skip
    sources = [TaskSource(name, folder / name, None) for name in ADAPTERS]
    add(path, sources, jobs=2)
    with Store.open(path) as store, Store.open(folder / "all.nps") as other:
        for name in ADAPTERS:
            assert same(store.materialize(name), other.materialize(name))


@pytest.mark.parametrize("whole", [True, False])
def test_modules_trained_as_a_whole_replace_the_bases(zoo, tmp_path, whole):
    settings, tensors = lora()
    own = torch.randn(32, 32)
    tensors["bert.pooler.dense.weight"] = own
    if not whole:
        del tensors["bert.pooler.dense.weight"]
    adapter = write(tmp_path / "lora", settings, tensors)
    compress(zoo.base, [TaskSource("lora", adapter, None)], tmp_path / "a.nps")
    with Store.open(tmp_path / "a.nps") as store:
        expected = own if whole else store.base.tensor("pooler.dense.weight")
        assert torch.equal(store.materialize("lora")["bert.pooler.dense.weight"], expected)


def test_a_config_beside_it_counts(zoo, tmp_path):
    adapter = write(tmp_path / "lora", *lora(task_type=None))
    config = json.loads((zoo.dense("three") / "config.json").read_text())
    (adapter / "config.json").write_text(json.dumps(config))
    compress(zoo.base, [TaskSource("lora", adapter, None)], tmp_path / "a.nps")
    with Store.open(tmp_path / "a.nps") as store:
        assert store.task("lora").config == config


def renamed(made, old, new):
    settings, tensors = made
    return settings, {k.replace(old, new): v for k, v in tensors.items()}


def changed(made, name, tensor):
    settings, tensors = made
    return settings, {**tensors, name: tensor}


QUERY = LAYER.format(0, "query")
REFUSALS = {
    "dora": (lora(use_dora=True), UnsupportedTaskError, "use_dora True"),
    "bias": (lora(bias="lora_only"), UnsupportedTaskError, "bias 'lora_only'"),
    "lora_bias": (lora(lora_bias=True), UnsupportedTaskError, "lora_bias"),
    "type": (lora(peft_type="LOHA"), UnsupportedTaskError, "peft_type 'LOHA'"),
    "replicated": (lora(layer_replication=[[0, 2]]), UnsupportedTaskError, "layer_replication"),
    "pissa": (lora(init_lora_weights="pissa"), UnsupportedTaskError, "init_lora_weights 'pissa'"),
    "embedding": (
        changed(lora(), "bert.embeddings.word_embeddings.lora_embedding_A", torch.ones(4, 16)),
        UnsupportedTaskError, "no factor of a linear layer",
    ),
    "magnitudes": (
        changed(lora(), f"{QUERY}.lora_magnitude_vector", torch.ones(32)),
        UnsupportedTaskError, "no factor of a linear layer",
    ),
    "of an embedding": (
        renamed(ia3(), LAYER.format(0, "key"), "bert.embeddings.LayerNorm"),
        UnsupportedTaskError, "no linear layer",
    ),
    "head without a task": (lora(task_type=None), UnsupportedTaskError, "config.json beside"),
    "task": (lora(task_type="TOKEN_CLS"), UnsupportedTaskError, "'TOKEN_CLS'"),
    "rank": (lora(r=3), NotAModelDirectoryError, "lora cannot make a weight"),
    "half": (
        (lora()[0], {k: v for k, v in lora()[1].items() if k != f"{QUERY}.lora_B.weight"}),
        NotAModelDirectoryError, "cannot make a weight",
    ),
    "kind": ((lora()[0], ia3()[1]), NotAModelDirectoryError, "lora cannot make"),
    "other model": (renamed(lora(), "attention", "mixer"), UnrelatedModelError, "not in the base"),
    "nothing": ((lora()[0], {"classifier.weight": torch.ones(3, 32)}), UnrelatedModelError,
                "no factors"),
    "nan": (
        changed(lora(), f"{QUERY}.lora_A.weight", torch.full((4, 32), torch.nan)),
        NonFiniteWeightError, "NaN or Inf",
    ),
    "settings": ((lora()[0] | {"peft_type": None}, lora()[1]), UnsupportedTaskError, "peft_type"),
    "pattern": (lora(rank_pattern=[1]), NotAModelDirectoryError, "cannot be used"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_stored_is_named_before_anything_is_written(zoo, tmp_path, case):
    made, error, message = REFUSALS[case]
    adapter = write(tmp_path / "adapter", *made)
    with pytest.raises(error, match=message) as caught:
        compress(zoo.base, [TaskSource("x", adapter, None)], tmp_path / "a.nps")
    assert isinstance(caught.value, NpsError)
    assert str(adapter) in str(caught.value)
    assert not (tmp_path / "a.nps").exists()


def test_files_that_are_missing_are_named(zoo, tmp_path):
    adapter = write(tmp_path / "adapter", *lora())
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(NotAModelDirectoryError, match=r"found adapter_model\.bin: convert"):
        compress(zoo.base, [TaskSource("x", adapter, None)], tmp_path / "a.nps")
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(NotAModelDirectoryError, match="cannot be used"):
        compress(zoo.base, [TaskSource("x", adapter, None)], tmp_path / "a.nps")


def test_another_dtype_is_refused(zoo, tmp_path):
    adapter = write(tmp_path / "adapter", *lora())
    with pytest.raises(BadOptionError, match="--dtype is BF16"):
        compress(zoo.base, [TaskSource("x", adapter, None)], tmp_path / "a.nps",
                 options=Options(dtype="BF16", keep=0.1))  # fmt: skip
