"""Tied tensors: what is served and what is exported are one model."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BertConfig, BertForMaskedLM

from formats.directory import TaskDirectory
from formats.writer import ContainerWriter
from nps_store.alignment import align
from nps_store.checkpoint import Checkpoint
from nps_store.compress import Options, TaskSource, compress
from nps_store.compress.encode import Encoding
from nps_store.compress.fine_tune import FineTune
from nps_store.compress.writing import TaskSink
from nps_store.errors import UnsupportedTaskError
from nps_store.export import export_task
from nps_store.modeling import LiveBase
from nps_store.modeling.shell import pad
from nps_store.modeling.ties import Ties
from nps_store.store import Store
from nps_store.task import tied
from tests.nps_store.language import SIZE, logits_alone, make_language, texts
from tests.nps_store.models import edit, same, weights

FIRST, SECOND = "model.embed_tokens.weight", "lm_head.weight"
TEXTS = texts(4, shift=5, seed=9)
DITHER = Options(method="dither", keep=0.2)
EXACT = Options(method="exact")
FORMS = {
    "first": lambda tensors: None,
    "both": lambda tensors: tensors.update({SECOND: tensors[FIRST].clone()}),
    "second": lambda tensors: tensors.update({SECOND: tensors.pop(FIRST)}),
    "untied": lambda tensors: tensors.update({SECOND: tensors[FIRST] * 0.9}),
}


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """Base and fine-tune in every form in which a checkpoint may hold a tied tensor."""
    made = make_language(tmp_path_factory.mktemp("qwen2"), "qwen2")
    for form, change in FORMS.items():
        for directory in (made.base, made.dense):
            edit(directory, made.root / f"{directory.name} {form}", change)
    return made


def stored(language, base, task, path, options):
    compress(
        language.root / f"base {base}",
        [TaskSource("task", language.root / f"dense {task}")],
        path / "s.nps",
        options=options,
    )
    return Store.open(path / "s.nps")


def served(store):
    live = LiveBase.load(store)
    task = live.prepare("task")
    live.switch_(task)
    batch = pad(task.encode(TEXTS), task.tokenizer, live.body.device)
    rows = task.shell.logits(batch).double()
    assert live.verify()
    return rows


def exported(store, path):
    export_task(store, "task", path / "out")
    return path / "out"


def check(rows, directory):
    """The logits served are those of the model directory."""
    for row, text in zip(rows, TEXTS, strict=True):
        expected, ids = logits_alone(directory, text)
        assert row[: len(ids)].numpy() == pytest.approx(expected.numpy(), abs=1e-4)


@pytest.mark.parametrize("task", ["first", "both", "second"])
@pytest.mark.parametrize("base", ["first", "both", "second"])
@pytest.mark.parametrize("options", [DITHER, EXACT], ids=["dither", "exact"])
def test_a_tied_tensor_is_stored_once(language, tmp_path, base, task, options):
    with stored(language, base, task, tmp_path, options) as store:
        source = language.root / f"dense {task}"
        made = store.materialize("task")
        assert made.keys() == weights(source).keys()
        if options is EXACT:
            assert same(made, weights(source))
        if task == "both":
            assert torch.equal(made[FIRST], made[SECOND])
        assert len({FIRST, SECOND} & {change.name for change in store.changes("task")}) == 1
        out = exported(store, tmp_path)
        assert same(weights(out), made)
        check(served(store), out)
        model = AutoModelForCausalLM.from_pretrained(out)
        assert model.lm_head.weight is model.model.embed_tokens.weight
        if options is EXACT:
            check(served(store), source)


@pytest.mark.parametrize("options", [DITHER, EXACT], ids=["dither", "exact"])
def test_names_cost_nothing(language, tmp_path, options):
    sizes = set()
    for form in ("first", "both"):
        (tmp_path / form).mkdir()
        with stored(language, form, form, tmp_path / form, options) as store:
            sizes.add(sum(entry.nbytes for entry in store.task("task").directory.tensors))
    assert len(sizes) == 1


@pytest.mark.parametrize("options", [DITHER, EXACT], ids=["dither", "exact"])
def test_different_tensors_are_not_tied_whatever_the_configuration_says(
    language, tmp_path, options
):
    """As `from_pretrained` takes them."""
    with stored(language, "untied", "untied", tmp_path, options) as store:
        out = exported(store, tmp_path)
        made = weights(out)
        assert not torch.equal(made[FIRST], made[SECOND])
        check(served(store), out)
        live = LiveBase.load(store)
        assert live.body.parameters.keys() >= {FIRST, SECOND}
        base = live.prepare(None)
        batch = pad(base.encode(TEXTS), base.tokenizer, live.body.device)
        check(base.shell.logits(batch).double(), language.root / "base untied")
        check_copy(live, out)


def check_copy(live, out):
    task = live.prepare("task", copy=True)
    batch = pad(task.encode(TEXTS), task.tokenizer, live.body.device)
    check(task.shell.logits(batch).double(), out)


@pytest.mark.parametrize(
    ("base", "task", "is_a"),
    [
        ("first", "untied", "two tensors"),
        ("both", "untied", "two tensors"),
        ("untied", "first", "one tensor"),
        ("untied", "both", "one tensor"),
    ],
)
@pytest.mark.parametrize("options", [DITHER, EXACT], ids=["dither", "exact"])
def test_one_body_cannot_be_tied_and_untied(language, tmp_path, base, task, is_a, options):
    with stored(language, base, task, tmp_path, options) as store:
        with pytest.raises(UnsupportedTaskError, match=f"are {is_a}.*export.*'task'"):
            LiveBase.load(store).prepare("task")
        out = exported(store, tmp_path)
        assert weights(out).keys() == weights(language.root / f"dense {task}").keys()
        if options is EXACT:
            assert same(weights(out), weights(language.root / f"dense {task}"))
        for text in TEXTS:
            expected, _ = logits_alone(language.root / f"dense {task}", text)
            loose = 1e-4 if options is EXACT else float(expected.abs().max())
            assert logits_alone(out, text)[0].numpy() == pytest.approx(expected.numpy(), abs=loose)


def test_both_names_of_a_tensor_may_be_stored(language, tmp_path):
    """As it was before ties were noted: equal tensors are one all the same."""
    base, task = (Checkpoint(language.root / f"{name} both") for name in ("base", "dense"))
    fine_tune = FineTune("task", task, base)
    fine_tune.ties = Ties(task.config)
    fine_tune.alignment = align(base, task, base_has_head=True)
    sink = TaskSink.of(base)
    with ContainerWriter.create(tmp_path / "s.nps") as writer:
        sink.set_base(writer, embed=False, name="base", path_hint=str(base.path))
        sink.write(writer, fine_tune, Encoding.of(fine_tune, None), meta={})
        writer.commit()
    with Store.open(tmp_path / "s.nps") as store:
        assert {FIRST, SECOND} <= {change.name for change in store.changes("task")}
        assert same(store.materialize("task"), weights(task.path))
        check(served(store), task.path)


def test_what_cannot_be_run_is_named_before_anything_is_written(language, tmp_path):
    source = TaskSource("mine", language.root / "dense untied", language.data)
    with pytest.raises(UnsupportedTaskError, match=r"exported \(task 'mine'\)"):
        compress(language.root / "base first", [source], tmp_path / "s.nps")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("noted", [None, 5, "x", ["x"], {"x": 1}])
def test_whatever_is_noted_under_that_name_harms_nothing(noted):
    directory = TaskDirectory("task", meta={"tied": noted})
    assert tied(directory) == ({"x": "1"} if isinstance(noted, dict) else {})


def test_a_search_counts_a_tied_tensor_once(language, tmp_path):
    kept = {}
    for form in ("first", "both"):
        source = TaskSource("task", language.root / f"dense {form}", language.data)
        options = Options(keep=0.05, evaluations=4, steps=3)
        compress(language.root / f"base {form}", [source], tmp_path / form, options=options)
        with Store.open(tmp_path / form) as store:
            kept[form] = {change.name: change.patch for change in store.changes("task")}
            check(served(store), exported(store, tmp_path / f"{form} out"))
    assert kept["first"].keys() == kept["both"].keys()
    for name, patch in kept["first"].items():
        assert torch.equal(patch.index, kept["both"][name].index)


def test_a_grown_vocabulary_under_both_names(language, tmp_path):
    def grow(tensors):
        torch.manual_seed(4)
        more = torch.randn(3, SIZE["hidden_size"]) * 0.1
        for name in {FIRST, SECOND} & tensors.keys():
            tensors[name] = torch.cat([tensors[name], more])

    for form in ("first", "both"):
        task = edit(language.root / f"dense {form}", tmp_path / f"grown {form}", grow)
        config = json.loads((task / "config.json").read_text()) | {"vocab_size": 323}
        (task / "config.json").write_text(json.dumps(config))
        for base in ("first", "both"):
            path = tmp_path / f"{form} {base}.nps"
            source = TaskSource("task", task, language.data)
            compress(language.root / f"base {base}", [source], path, options=EXACT)
            with Store.open(path) as store:
                assert same(store.materialize("task"), weights(task))
                check_copy(LiveBase.load(store), task)
            options = Options(keep=0.5, evaluations=0, steps=2)
            (made,) = compress(language.root / f"base {base}", [source], path, options=options,
                               overwrite=True)  # fmt: skip
            assert made.quality.value > 0.5
            with Store.open(path) as store:
                assert store.materialize("task").keys() == weights(task).keys()
                check_copy(LiveBase.load(store), exported(store, tmp_path / f"{form} {base}"))


def test_tied_tensors_of_a_masked_language_model(tmp_path):
    """Ties of other classes are known too, under names of their own."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=8, max_position_embeddings=8)  # fmt: skip
    BertForMaskedLM(config).save_pretrained(tmp_path / "base")
    words, bias = "bert.embeddings.word_embeddings.weight", "cls.predictions.bias"

    def tune(tensors):
        torch.manual_seed(1)
        for tensor in tensors.values():
            tensor += 0.01 * torch.randn_like(tensor)
        tensors["cls.predictions.decoder.weight"] = tensors[words].clone()
        tensors["cls.predictions.decoder.bias"] = tensors[bias].clone()

    task = edit(tmp_path / "base", tmp_path / "task", tune)
    compress(tmp_path / "base", [TaskSource("task", task)], tmp_path / "s.nps", options=DITHER)
    with Store.open(tmp_path / "s.nps") as store:
        made = store.materialize("task")
        assert torch.equal(made["cls.predictions.decoder.weight"], made[words])
        assert torch.equal(made["cls.predictions.decoder.bias"], made[bias])
        assert not any("decoder" in change.name for change in store.changes("task"))
        out = exported(store, tmp_path)
    model = AutoModelForMaskedLM.from_pretrained(out)
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight


def test_what_is_tied_is_told_from_class_configuration_and_tensors(language, tmp_path):
    found = {form: Ties.of(Checkpoint(language.root / f"base {form}")) for form in FORMS}
    assert {form: dict(ties.second) for form, ties in found.items()} == {
        "first": {}, "both": {SECOND: FIRST}, "second": {}, "untied": {},
    }  # fmt: skip
    assert {form: ties.config["tie_word_embeddings"] for form, ties in found.items()} == {
        "first": True, "both": True, "second": True, "untied": False,
    }  # fmt: skip
    for changes in (
        {"tie_word_embeddings": False},
        {"architectures": ["Qwen2Model"]},
        {"architectures": ["OfAnotherLibrary"]},
        {"model_type": "of another library"},
        {"architectures": None},
    ):
        directory = tmp_path / str(changes)
        shutil.copytree(language.root / "base both", directory)
        config = json.loads((directory / "config.json").read_text()) | changes
        (directory / "config.json").write_text(json.dumps(config))
        assert Ties.of(Checkpoint(directory)).second == {}
