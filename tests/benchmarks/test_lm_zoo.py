"""The zoo of language models at its smallest: real models, honest cards, held-out data."""

from __future__ import annotations

import json
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks import corpus, lm_text, lm_zoo
from benchmarks.lm_settings import TINY
from benchmarks.lm_training import Recipe, drift, held_out_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

TASKS = [f"{domain}-{shift}" for domain in corpus.DOMAINS for shift in ("light", "heavy")]
SMALL = replace(
    TINY,
    base=Recipe(steps=30, batch_size=8, learning_rate=3e-3),
    trials=3,
    n_characters=60_000,
)


@pytest.fixture(scope="module")
def corpus_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python's library under the names of all registers: there is nothing else everywhere."""
    root = Path(sysconfig.get_path("stdlib"))
    names = (*corpus.GENERAL, *corpus.DOMAINS)
    letters = ("[ab]", "[cd]", "[e-h]", "[i-n]", "[op]", "[q-s]", "[t-z]")
    sources = [
        corpus.Source(name, (root,), (f"{first}*.py",), 600_000)
        for name, first in zip(names, letters, strict=True)
    ]
    return corpus.write(tmp_path_factory.mktemp("corpus") / "c.jsonl.xz", corpus.build(sources))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, corpus_path: Path) -> Path:
    out = tmp_path_factory.mktemp("lm") / "zoo_lm"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm_zoo, "TINY", SMALL)
        lm_zoo.main(out=out, corpus_path=corpus_path, tiny=True)
    return out


def card(made: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((made / f"{name}.json").read_text())
    return content


def rows(made: Path, task: str, split: str) -> list[str]:
    lines = (made / "data" / f"{task}.{split}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line)["text"] for line in lines if line]


def test_every_model_is_an_ordinary_directory_in_bf16(made: Path) -> None:
    for name in ("base", *TASKS):
        model = AutoModelForCausalLM.from_pretrained(made / name)
        assert model.dtype == torch.bfloat16
        assert type(model).__name__ == "LlamaForCausalLM"
        assert model.lm_head.weight is not model.model.embed_tokens.weight
        assert AutoTokenizer.from_pretrained(made / name)("a")["input_ids"][0] == lm_text.START_ID
    assert not list(made.glob("*.partial"))


def test_cards_say_what_the_files_hold(made: Path, corpus_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(made / "base")
    for name in TASKS:
        model = AutoModelForCausalLM.from_pretrained(made / name)
        said = card(made, name)
        assert drift(base.state_dict(), model.state_dict()) == pytest.approx(said["drift"])
        texts = rows(made, name, "test")
        ids = AutoTokenizer.from_pretrained(made / name)(texts)["input_ids"]
        assert held_out_loss(model, ids) == pytest.approx(said["test_loss"], rel=1e-6)
        assert held_out_loss(base, ids) == pytest.approx(said["base_test_loss"], rel=1e-6)
        assert said["corpus"] == corpus.file_hash(corpus_path)
        assert (said["n_test"], said["n_calibration"]) == (24, 24)


def test_fine_tunes_moved_as_far_as_asked_and_gained(made: Path) -> None:
    for shift in SMALL.shifts:
        for domain in corpus.DOMAINS:
            said = card(made, f"{domain}-{shift.name}")
            assert shift.least <= said["drift"] <= shift.most
            assert said["test_loss"] < said["base_test_loss"]


def test_held_out_texts_are_apart_and_fit_the_context(made: Path, corpus_path: Path) -> None:
    documents = corpus.read(corpus_path)
    tokenizer = AutoTokenizer.from_pretrained(made / "base")
    for domain in corpus.DOMAINS:
        calibration, test = (rows(made, f"{domain}-light", s) for s in ("calibration", "test"))
        assert calibration == rows(made, f"{domain}-heavy", "calibration")
        of_split = {
            split: "\n".join(lm_text.texts_of(documents, [domain], split))
            for split in ("train", "calibration", "test")
        }
        assert all(text in of_split["calibration"] for text in calibration)
        assert all(text in of_split["test"] for text in test)
        assert not set(calibration) & set(test)
        assert max(len(ids) for ids in tokenizer(calibration + test)["input_ids"]) <= 64


def test_a_second_run_finds_everything(
    made: Path, corpus_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm_zoo, "TINY", SMALL)
    monkeypatch.setattr(lm_zoo, "train", _interrupt)
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    lm_zoo.main(out=made, corpus_path=corpus_path, tiny=True)
    assert before == {path: path.stat().st_mtime_ns for path in made.rglob("*")}


def test_another_recipe_is_another_model(
    made: Path, corpus_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm_zoo, "train", _interrupt)
    monkeypatch.setattr(lm_zoo, "TINY", replace(SMALL, base=replace(SMALL.base, seed=2)))
    with pytest.raises(KeyboardInterrupt):
        lm_zoo.main(out=made, corpus_path=corpus_path, tiny=True)
    with pytest.raises(KeyboardInterrupt):
        lm_zoo.main(out=tmp_path, corpus_path=corpus_path, tiny=True)
    assert list(tmp_path.iterdir()) == []  # nothing half-made


def test_same_seed_same_weights(
    made: Path, corpus_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm_zoo, "TINY", replace(SMALL, shifts=()))
    lm_zoo.main(out=tmp_path, corpus_path=corpus_path, tiny=True)
    assert card(tmp_path, "base")["weights"] == card(made, "base")["weights"]


def test_passages_avoid_what_was_trained_on(corpus_path: Path) -> None:
    texts = lm_text.texts_of(corpus.read(corpus_path), ["python"], "train")[:20]
    tokenizer = lm_text.train_tokenizer(texts, vocab_size=300, context=64)

    def passages(seen: set[bytes], n: int = 10**6) -> Sequence[str]:
        return lm_text.passages(tokenizer, texts, seen=seen, context=64, n=n, seed=0)

    free = passages(set())
    kept = passages(corpus.lines_of("\n".join(texts[:10])))
    assert 0 < len(kept) < len(free)
    assert passages(set(), n=5) == free[:5]
    tokens = lm_text.stream(tokenizer, texts)
    assert int((tokens == lm_text.START_ID).sum()) == len(texts)
    assert tokenizer.decode(tokens[1:], skip_special_tokens=True) == "".join(texts)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
