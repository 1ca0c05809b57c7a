"""Causal language models on a shared body: each answers as it would alone."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
)

from nps_store.checkpoint import Checkpoint
from nps_store.compress import Options, TaskSource, compress
from nps_store.errors import ModelLoadError, UnsupportedTaskError
from nps_store.modeling import Body, LiveBase
from nps_store.modeling.shell import pad
from nps_store.store import Store
from tests.nps_store import language as language_models
from tests.nps_store.language import logits_alone, make_language, save, texts, write_texts
from tests.nps_store.models import edit, same, weights

EXACT = Options(method="exact")
TEXTS = texts(6, shift=5, seed=9)


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def language(request, tmp_path_factory):
    return make_language(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_language(tmp_path_factory.mktemp("llama"), "llama")


def opened(base, task, directory):
    compress(base, [TaskSource("task", task)], directory / "s.nps", options=EXACT)
    return Store.open(directory / "s.nps")


def logits(live, task):
    live.switch_(task)
    batch = pad(task.encode(TEXTS), task.tokenizer, live.body.device)
    return task.shell.logits(batch)


def check(live, task, directory):
    """The padded batch answers as the dense model does, one text at a time."""
    for row, text in zip(logits(live, task), TEXTS, strict=True):
        expected, ids = logits_alone(directory, text)
        assert row[: len(ids)].double().numpy() == pytest.approx(expected.numpy(), abs=1e-4)


def test_base_and_task_answer_as_alone(language, tmp_path):
    with opened(language.base, language.dense, tmp_path) as store:
        live = LiveBase.load(store)
        base, task = live.prepare(None), live.prepare("task")
        assert (base.kind, task.kind, task.labels, task.shell.head) == (
            "generate",
            "generate",
            [],
            {},
        )
        for _ in range(2):
            check(live, base, language.base)
            check(live, task, language.dense)
        check(live, live.prepare("task", copy=True), language.dense)
        assert live.verify()


def test_weights_in_place_are_the_checkpoints(language, tmp_path):
    with opened(language.base, language.dense, tmp_path) as store:
        live = LiveBase.load(store)
        live.switch_(live.prepare("task"))
        assert same(dict(live.body.parameters), weights(language.dense))
        assert same(store.materialize("task"), weights(language.dense))


def test_the_answer_is_no_row(language, tmp_path):
    with opened(language.base, language.dense, tmp_path) as store:
        live = LiveBase.load(store)
        with pytest.raises(UnsupportedTaskError, match="gives text"):
            live.run(live.prepare(None), [[0, 1]])


def test_a_tied_tensor_that_is_stored_twice_counts_once(tmp_path):
    made = make_language(tmp_path / "q", "qwen2")

    def twice(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    base, dense = (edit(d, tmp_path / d.name, twice) for d in (made.base, made.dense))
    with opened(base, dense, tmp_path) as store:
        live = LiveBase.load(store)
        assert live.body.tied == {"lm_head.weight": "model.embed_tokens.weight"}
        assert "lm_head.weight" not in live.body.parameters
        check(live, live.prepare("task"), made.dense)
        assert live.verify()


def with_config(source, target, **changes):
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "rope_parameters"),
        ({"rms_norm_eps": 0.1}, "rms_norm_eps"),
        ({"num_key_value_heads": 4}, "num_key_value_heads"),
    ],
)
def test_a_task_that_wants_another_body_is_refused_by_name(llama, tmp_path, changes, named):
    task = with_config(llama.dense, tmp_path / "task", **changes)
    with opened(llama.base, task, tmp_path) as store:
        with pytest.raises(UnsupportedTaskError, match=named):
            LiveBase.load(store).prepare("task")
        assert same(store.materialize("task"), weights(task))  # but it is kept


def test_an_incomplete_base_is_refused(llama, tmp_path):
    base = edit(llama.base, tmp_path / "base", lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(ModelLoadError, match=r"lm_head\.weight.*missing"):
        Body(Checkpoint(base))


def test_a_headless_base_has_tasks_with_an_output_layer(language, tmp_path):
    whole = AutoModelForCausalLM.from_pretrained(language.base)
    save(whole.model, tmp_path / "base")
    with opened(tmp_path / "base", language.dense, tmp_path) as store:
        live = LiveBase.load(store)
        task = live.prepare("task")
        assert live.prepare(None).kind == "embed"
        assert set(task.shell.head) == (set() if task.shell.tied else {"lm_head.weight"})
        check(live, task, language.dense)


def test_a_grown_vocabulary_grows_the_output_layer_too(language, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(language.dense)
    torch.manual_seed(4)
    model.resize_token_embeddings(language_models.SIZE["vocab_size"] + 3, mean_resizing=False)
    save(model, tmp_path / "grown")
    data = write_texts(tmp_path / "data.jsonl", texts(12, shift=5, seed=6))
    source = TaskSource("task", tmp_path / "grown", data)
    options = Options(keep=0.5, evaluations=3, steps=5)
    (stored,) = compress(language.base, [source], tmp_path / "s.nps", options=options)
    assert stored.quality.value > 0.5
    with Store.open(tmp_path / "s.nps") as store:
        grown = {change.name for change in store.changes("task") if change.rows is not None}
        own_head = "lm_head.weight" in Checkpoint(language.base).names
        assert grown == {"model.embed_tokens.weight", *(["lm_head.weight"] if own_head else [])}
        task = LiveBase.load(store).prepare("task", copy=True)
        batch = pad(task.encode(TEXTS), task.tokenizer, task.shell.body.device)
        assert task.shell.logits(batch).shape[-1] == 323
        assert same(dict(task.shell.body.parameters), store.materialize("task"))


def test_classifiers_and_bare_bodies_run_on_a_language_model(llama, tmp_path):
    torch.manual_seed(3)
    config = LlamaConfig.from_pretrained(llama.base, num_labels=3)
    model = LlamaForSequenceClassification.from_pretrained(llama.base, config=config)
    save(model, tmp_path / "classifier")
    save(LlamaModel.from_pretrained(llama.dense), tmp_path / "bare")
    tasks = [TaskSource(name, tmp_path / name) for name in ("classifier", "bare")]
    compress(llama.base, tasks, tmp_path / "s.nps", options=EXACT)
    with Store.open(tmp_path / "s.nps") as store:
        live = LiveBase.load(store)
        for name, kind in (
            ("classifier", "classify"),
            ("bare", "embed"),
            ("classifier", "classify"),
        ):
            task = live.prepare(name)
            assert task.kind == kind
            live.switch_(task)
            ids = task.encode(TEXTS[:1])
            made = live.run(task, ids)[0]
            inputs = torch.tensor(ids)
            if kind == "classify":
                expected = model.eval()(inputs).logits[0].softmax(-1)
            else:
                bare = LlamaModel.from_pretrained(llama.dense).eval()
                expected = bare(inputs).last_hidden_state[0].mean(0)
            assert made == pytest.approx(expected.detach(), abs=1e-5)
        assert live.verify()
