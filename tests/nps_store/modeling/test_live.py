"""One body, many tasks: each answers as it would alone, and the base stays what it is."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertModel

from nps_store.compress import Options, TaskSource, add, compress
from nps_store.errors import BadOptionError, ModelLoadError, UnsupportedTaskError
from nps_store.export import export_task
from nps_store.modeling import Body, LiveBase
from nps_store.store import Store
from nps_store.switch import Replace, ResidentTask, Targets
from tests.nps_store.models import (
    LABELS,
    cast,
    corpus,
    edit,
    grow,
    probabilities,
    same,
    weights,
)
from tests.tiny import save_tokenizer

EXACT = Options(method="exact")
TEXTS = [text for text, _ in corpus(LABELS["five"], 24, seed=8)] + ["a", "library " * 40]
IN_PLACE = ["two", "three", "five", "cased", "embed", "sparse"]


@pytest.fixture(scope="module")
def made(zoo, tmp_path_factory):
    """A store of tasks that differ in heads, labels, tokenizers and vocabulary, and where they are
    as dense directories."""
    root = tmp_path_factory.mktemp("live")
    cased = shutil.copytree(zoo.dense("two"), root / "cased")
    save_tokenizer(cased, lower_case=False)
    embed = edit(zoo.base, root / "embed", lambda t: [v.mul_(1.01) for v in t.values()])
    grown = grow(zoo.dense("three"), root / "grown", 2)
    dense = {name: zoo.dense(name) for name in LABELS}
    dense |= {"cased": cased, "embed": embed, "grown": grown}
    path = root / "s.nps"
    compress(zoo.base, [TaskSource(n, d) for n, d in dense.items()], path, options=EXACT)
    add(path, [TaskSource("sparse", zoo.dense("five"))], options=Options(keep=0.2))
    with Store.open(path) as store:
        export_task(store, "sparse", root / "sparse")
    return path, dense | {"sparse": root / "sparse"}


@pytest.fixture(scope="module")
def live(made):
    with Store.open(made[0]) as store:
        yield LiveBase.load(store)


@pytest.fixture(scope="module")
def prepared(live):
    return {name: live.prepare(name) for name in IN_PLACE}


@pytest.fixture(scope="module")
def expected(made):
    return {name: alone(directory, TEXTS) for name, directory in made[1].items()}


def alone(directory, texts):
    """Answers of the dense model, one text at a time."""
    if directory.name not in {"embed", "base"}:
        return probabilities(directory, texts)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = BertModel.from_pretrained(directory).eval()
    rows = []
    with torch.inference_mode():
        for text in texts:
            batch = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
            rows.append(model(**batch).last_hidden_state[0].mean(0))
    return torch.stack(rows)


def answer(live, task, texts):
    live.switch_(task)
    return live.run(task, task.encode(texts))


def in_place(live, task):
    """Weights of the task as its model sees them, by its checkpoint's names."""
    prefix = f"{task.shell.prefix}." if task.shell.prefix else ""
    body = {prefix + name: tensor for name, tensor in live.body.parameters.items()}
    return {**body, **task.shell.head}


@pytest.mark.parametrize("name", IN_PLACE)
def test_weights_in_place_are_those_of_export_and_materialize(live, prepared, name, tmp_path):
    live.switch_(prepared[name])
    served = {key: value.clone() for key, value in in_place(live, prepared[name]).items()}
    assert same(served, live.store.materialize(name))
    export_task(live.store, name, tmp_path / "out")
    assert same(served, weights(tmp_path / "out"))


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("batch", [1, 5, 100])
def test_answers_are_the_dense_models_whatever_the_batch(live, prepared, expected, name, batch):
    parts = [
        answer(live, prepared[name], TEXTS[start : start + batch])
        for start in range(0, len(TEXTS), batch)
    ]
    assert torch.cat(parts) == pytest.approx(expected[name], abs=1e-5)


def test_tasks_in_turn_answer_as_alone(live, prepared, expected):
    order = [*IN_PLACE, *reversed(IN_PLACE), "two", "five", "two", "five", "embed", "two"]
    for name in order:
        made = answer(live, prepared[name], TEXTS)
        assert live.current == name
        assert made == pytest.approx(expected[name], abs=1e-5)


def test_the_base_is_the_base_after_two_hundred_switches(made):
    with Store.open(made[0]) as store:
        live = LiveBase.load(store)
        before = live.body.hash()
        tasks = [live.prepare(name) for name in (None, *IN_PLACE)]
        rng = np.random.default_rng(0)
        for number in rng.integers(len(tasks), size=200):
            live.switch_(tasks[number])
            assert live.current == tasks[number].name
        assert live.verify()
        assert live.body.hash() == before
        assert live.current is None
        live.body.parameters["pooler.dense.bias"][0] += 1
        assert not live.verify()


def test_heads_labels_and_tokenizers_are_the_tasks_own(prepared):
    for name in LABELS:
        assert tuple(prepared[name].labels) == LABELS[name]
        assert prepared[name].kind == "classify"
        assert prepared[name].shell.head["classifier.weight"].shape[0] == len(LABELS[name])
    assert (prepared["embed"].kind, prepared["embed"].labels) == ("embed", [])
    assert prepared["two"].tokenizer is prepared["three"].tokenizer
    assert prepared["cased"].tokenizer is not prepared["two"].tokenizer
    assert prepared["two"].encode(["TOOL"]) != prepared["cased"].encode(["TOOL"])
    assert prepared["two"].encode(["tool"]) == prepared["cased"].encode(["tool"])


def test_texts_are_cut_to_the_models_limit(prepared):
    assert len(prepared["two"].encode(["tool " * 100])[0]) == 32


def test_the_base_itself_answers(live, zoo):
    base = live.prepare(None)
    assert answer(live, base, TEXTS) == pytest.approx(alone(zoo.base, TEXTS), abs=1e-5)
    assert (base.kind, live.current) == ("embed", None)


def test_a_grown_vocabulary_needs_a_copy(live, expected, made):
    with pytest.raises(UnsupportedTaskError, match="'grown' has a grown vocabulary"):
        live.prepare("grown")
    task = live.prepare("grown", copy=True)
    assert live.run(task, task.encode(TEXTS)) == pytest.approx(expected["grown"], abs=1e-5)
    assert same(
        {**{f"bert.{n}": t for n, t in task.shell.body.parameters.items()}, **task.shell.head},
        weights(made[1]["grown"]),
    )
    new = task.encode(["new0 tool"])
    assert max(max(ids) for ids in new) >= 16
    assert live.run(task, new) == pytest.approx(alone(made[1]["grown"], ["new0 tool"]), abs=1e-5)


def test_a_copy_stands_beside_the_shared_body(live, prepared, expected):
    copy = live.prepare("two", copy=True)
    live.switch_(prepared["five"])
    assert live.switch_(copy) == 0
    assert live.current == "five"
    assert live.run(copy, copy.encode(TEXTS)) == pytest.approx(expected["two"], abs=1e-5)
    five = prepared["five"]
    assert live.run(five, five.encode(TEXTS)) == pytest.approx(expected["five"], abs=1e-5)
    assert copy.nbytes > prepared["sparse"].nbytes


def test_running_a_task_that_is_not_in_place_is_refused(live, prepared):
    live.switch_(prepared["two"])
    with pytest.raises(RuntimeError, match="'five' is not in place, 'two' is"):
        live.run(prepared["five"], [[1, 2]])
    with pytest.raises(RuntimeError):
        live.run(live.prepare(None), [[1, 2]])


def test_a_failing_switch_leaves_the_base(made):
    with Store.open(made[0]) as store:
        live = LiveBase.load(store)
        task = live.prepare("two")
        bad = (live.body.parameters["pooler.dense.bias"], Replace(torch.zeros(5)))
        pairs = [(live.body.parameters["embeddings.LayerNorm.bias"], Replace(torch.ones(32))), bad]
        resident = ResidentTask.of(Targets(tensor for tensor, _ in pairs), pairs)
        task = dataclasses.replace(task, changes=resident)
        live.switch_(live.prepare("three"))
        with pytest.raises(ValueError, match="5 elements for 32"):
            live.switch_(task)
        assert live.current is None
        assert live.verify()


def test_a_sentence_transformers_base_answers(zoo, tmp_path):
    """Its first file by name lies in a folder of its own."""
    base = shutil.copytree(zoo.base, tmp_path / "base")
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    modules = [{"type": "m.Transformer", "path": ""}, {"type": "m.Pooling", "path": "1_Pooling"}]
    (base / "modules.json").write_text(json.dumps(modules))
    compress(base, [TaskSource("two", zoo.dense("two"))], tmp_path / "s.nps", options=EXACT,
             embed_base=True)  # fmt: skip
    with Store.open(tmp_path / "s.nps") as store:
        live = LiveBase.load(store)
        task = live.prepare(None)
        assert task.shell.pooling.mode == "cls"
        hidden = BertModel.from_pretrained(base)(torch.tensor([[2, 6, 3]])).last_hidden_state
        assert live.run(task, [[2, 6, 3]]) == pytest.approx(hidden[:, 0].detach(), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_of_half_precision(zoo, tmp_path, dtype):
    base = cast(zoo.base, tmp_path / "base", dtype)
    task = cast(zoo.dense("two"), tmp_path / "task", dtype)
    compress(base, [TaskSource("two", task)], tmp_path / "s.nps", options=EXACT)
    with Store.open(tmp_path / "s.nps") as store:
        live = LiveBase.load(store)
        prepared = live.prepare("two")
        live.switch_(prepared)
        assert same(in_place(live, prepared), weights(task))
        made = live.run(prepared, prepared.encode(TEXTS))
        assert (made.argmax(-1) == probabilities(task, TEXTS).argmax(-1)).float().mean() > 0.9
        assert live.verify()


def test_a_task_of_another_dtype_is_refused(zoo, tmp_path):
    compress(zoo.base, [TaskSource("two", zoo.dense("two"))], tmp_path / "s.nps",
             options=Options(keep=0.1, dtype="BF16"))  # fmt: skip
    with Store.open(tmp_path / "s.nps") as store:
        with pytest.raises(UnsupportedTaskError, match="compressed for BF16"):
            LiveBase.load(store).prepare("two")
        live = LiveBase.load(store, dtype=torch.bfloat16)
        prepared = live.prepare("two")
        live.switch_(prepared)
        assert same(in_place(live, prepared), store.materialize("two"))


def config_of(directory, target, **changes):
    shutil.copytree(directory, target)
    config = json.loads((target / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"architectures": ["BertForQuestionAnswering"]}, UnsupportedTaskError),
        ({"architectures": []}, UnsupportedTaskError),
        ({"architectures": ["NopeForSequenceClassification"]}, ModelLoadError),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, ModelLoadError),
    ],
)
def test_a_task_that_cannot_be_run_is_refused_by_reason(zoo, tmp_path, changes, error):
    task = config_of(zoo.dense("two"), tmp_path / "task", **changes)
    compress(zoo.base, [TaskSource("two", task)], tmp_path / "s.nps", options=EXACT)
    with Store.open(tmp_path / "s.nps") as store:
        live = LiveBase.load(store)
        with pytest.raises(error):
            live.prepare("two")
        assert same(store.materialize("two"), weights(task))  # but it is kept


def test_a_base_that_makes_no_model_is_refused(zoo, tmp_path):
    from nps_store.checkpoint import Checkpoint

    for number, changes in enumerate([{"model_type": "nope"}, {"vocab_size": 9}]):
        base = config_of(zoo.base, tmp_path / str(number), **changes)
        with pytest.raises((ModelLoadError, ValueError)):
            Body(Checkpoint(base))
    for device in ("nope", "cuda:99"):
        with pytest.raises(BadOptionError, match="--device"):
            Body(Checkpoint(zoo.base), device=device)
