"""A language model on calibration texts: losses text by text, in the order of the rows."""

from __future__ import annotations

import numpy as np
import pytest

from nps_store.calibration import Examples, Row, Runner, gain_kept
from nps_store.calibration import runner as module
from nps_store.checkpoint import Checkpoint
from nps_store.compress import Options, TaskSource, compress
from nps_store.errors import CalibrationError
from nps_store.modeling import Body, LiveBase, Shell
from nps_store.modeling.shell import load_tokenizer
from nps_store.store import Store
from tests.nps_store.language import CONTEXT, logits_alone, make_language, texts

ROWS = [Row(text) for text in texts(24, shift=5, seed=4)]


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def language(request, tmp_path_factory):
    return make_language(tmp_path_factory.mktemp(request.param), request.param)


def model_of(directory):
    checkpoint = Checkpoint(directory)
    shell = Shell(checkpoint.config, Body(checkpoint), pooling=None)
    return shell, load_tokenizer(directory)


def by_hand(language, text):
    """Cross entropy of the dense fine-tune and of the base, and the KL between them."""
    (dense, ids), (base, _) = (logits_alone(d, text) for d in (language.dense, language.base))
    p, q = (x.log_softmax(-1).numpy()[:-1] for x in (dense, base))
    following = ids[1:].numpy()
    at = np.arange(len(following))
    return -p[at, following].mean(), -q[at, following].mean(), (np.exp(p) * (p - q)).sum(1).mean()


@pytest.mark.parametrize("budget", [1, 100_000, 1 << 28])
def test_losses_are_the_dense_models(language, monkeypatch, budget, tmp_path):
    monkeypatch.setattr(module, "LOGITS_NBYTES", budget)
    options = Options(method="exact")
    compress(language.base, [TaskSource("task", language.dense)], tmp_path / "s.nps",
             options=options)  # fmt: skip
    with Store.open(tmp_path / "s.nps") as store:
        live = LiveBase.load(store)
        task = live.prepare("task")
        runner = Runner(task.shell, task.tokenizer, Examples.of(ROWS, task.shell, task.tokenizer,
                                                                where="x"))  # fmt: skip
        live.switch_(task)
        runner.refer_()
        dense = runner()
        live.switch_(live.prepare(None))
        base = runner()
    expected = np.array([by_hand(language, row.text) for row in ROWS])
    assert dense.of("loss") == pytest.approx(expected[:, 0], abs=1e-4)
    assert base.of("loss") == pytest.approx(expected[:, 1], abs=1e-4)
    assert base.of("distill") == pytest.approx(expected[:, 2], rel=0.01, abs=1e-4)
    assert (dense.of("distill") == 0).all()
    assert dense.accuracy is None
    for measure in ("loss", "distill"):
        ends = [gain_kept(x, dense=dense, base=base, measure=measure).value for x in (dense, base)]
        assert ends == pytest.approx([1, 0], abs=1e-9)


def test_long_texts_are_cut_and_counted(language, monkeypatch):
    model = model_of(language.base)
    rows = [Row(" ".join(["red"] * n)) for n in (CONTEXT - 4, CONTEXT + 5, 200)]
    assert Examples.of(rows, *model, where="x").n_truncated == 2
    monkeypatch.setattr(module, "MOST_TOKENS", 6)
    examples = Examples.of(rows, *model, where="x")
    assert [len(ids) for ids in examples.ids] == [6, 6, 6]
    assert examples.n_truncated == 3


@pytest.mark.parametrize("text", ["", "r"])
def test_a_text_without_a_token_to_predict_is_refused_by_line(language, text):
    rows = [Row("red green", line=1), Row(text, line=7)]
    with pytest.raises(CalibrationError, match=r"data\.jsonl: line 7: .*no token to predict"):
        Examples.of(rows, *model_of(language.base), where="data.jsonl")
