"""Fine-tuning a tiny base: an ordinary directory comes out, whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from benchmarks import debian, minilm, zoo

if TYPE_CHECKING:
    from pathlib import Path

    from tests.nps_store.models import Zoo

ROWS = [
    {"text": text, "label": label}
    for text, label in (("a game server", "game"), ("image tool", "image")) * 40
]


@pytest.fixture(scope="module")
def base(zoo: Zoo) -> Path:
    return zoo.base


def test_a_fine_tune_loads_by_itself_and_learned(base: Path, tmp_path: Path) -> None:
    recipe = zoo.Recipe(epochs=20, batch_size=16, learning_rate=3e-3)
    zoo.fine_tune(base, tmp_path / "out", ROWS, recipe=recipe)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert set(model.config.id2label.values()) == {"game", "image"}
    assert zoo.accuracy(model, zoo.tokenizer(base), ROWS, 32) == 1.0
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (
        base / "tokenizer.json"
    ).read_bytes()


def test_all_weights_are_trained(base: Path, tmp_path: Path) -> None:
    recipe = zoo.Recipe(epochs=1, batch_size=16)
    model = zoo.fine_tune(base, tmp_path / "out", ROWS, recipe=recipe)
    before = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    changed = [
        not torch.equal(tensor, before.state_dict()[name])
        for name, tensor in model.state_dict().items()
        if "embeddings.position" not in name and "token_type" not in name
    ]
    assert sum(changed) >= 0.9 * len(changed)


def test_nothing_appears_when_training_stops(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "encode", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        zoo.fine_tune(base, tmp_path / "out", ROWS, recipe=zoo.Recipe())
    assert list(tmp_path.iterdir()) == []


def test_finished_tasks_are_skipped(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, "base_dir", lambda: base)
    monkeypatch.setattr(debian, "rows", lambda *_: ROWS)
    zoo.main(out=tmp_path, task=["use"], epochs=0.5)
    written = (tmp_path / "use" / "model.safetensors").stat().st_mtime_ns
    zoo.main(out=tmp_path, task=["use"], epochs=0.5)
    assert (tmp_path / "use" / "model.safetensors").stat().st_mtime_ns == written
    zoo.main(out=tmp_path, task=["use"], epochs=1)
    assert (tmp_path / "use" / "model.safetensors").stat().st_mtime_ns != written


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
