"""Language models by the command line: calibrated on text alone, evaluated in loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from tests.nps_store.language import make_language, texts, write_texts

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Nps
    from tests.nps_store.language import Language


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Language:
    return make_language(tmp_path_factory.mktemp("llama"), "llama")


def test_compress_and_evaluate(nps: Nps, language: Language, tmp_path: Path) -> None:
    store = tmp_path / "s.nps"
    made = nps(
        "compress", "--base", language.base, "--task", f"task={language.dense}",
        "--calib", f"task={language.data}", "--keep", 0.3, "--evaluations", 5,
        "--objective", "loss", "--out", store, "--json",
    )  # fmt: skip
    assert made.code == 0, made.err
    assert made.document["tasks"][0]["quality"]["measure"] == "loss"
    data = write_texts(tmp_path / "test.jsonl", [*texts(30, shift=5, seed=8), "red " * 99])
    command = ("eval", store, "task", "--data", data, "--dense", language.dense)
    found = nps(*command, "--json").document
    assert found["dense"] < found["stored"] < found["base"]
    assert found["perplexity"]["stored"] == pytest.approx(math.exp(found["stored"]))
    assert 0 < found["gain_kept"]["low"] < found["gain_kept"]["value"]
    assert (found["n_examples"], found["n_truncated"]) == (31, 1)
    shown = nps(*command).out.splitlines()
    assert shown[0].split() == ["metric", "base", "stored", "dense", "ratio", "gain", "kept",
                                "95", "%"]  # fmt: skip
    assert shown[1].split()[:4] == [
        "loss",
        *(f"{found[k]:.4f}" for k in ("base", "stored", "dense")),
    ]
    assert shown[2].split()[0] == "perplexity"


def test_an_empty_text_is_refused_by_its_line(nps: Nps, language: Language, tmp_path: Path) -> None:
    data = write_texts(tmp_path / "bad.jsonl", ["red green", "", "blue black"])
    result = nps(
        "compress", "--base", language.base, "--task", f"task={language.dense}",
        "--calib", f"task={data}", "--keep", 0.3, "--out", tmp_path / "s.nps",
    )  # fmt: skip
    assert result.code == 40
    assert "line 2" in result.sentence
    assert not (tmp_path / "s.nps").exists()
