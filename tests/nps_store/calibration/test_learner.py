"""The live model's gradient at chosen elements, against a model that torch differentiates whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nps_store.calibration import read_rows
from nps_store.checkpoint import Checkpoint
from nps_store.compress import Options, TaskSource, compress
from nps_store.compress.calibrate import Calibration
from nps_store.compress.fine_tune import FineTune
from nps_store.store import Store
from tests.nps_store.language import make_language
from tests.nps_store.models import edit


@pytest.fixture
def fine_tune(zoo):
    return FineTune("three", Checkpoint(zoo.dense("three")), Checkpoint(zoo.base))


@pytest.fixture
def calibration(zoo, fine_tune):
    return Calibration(fine_tune, read_rows(zoo.data("three")), Options())


def some_positions(fine_tune, count=40):
    rng = np.random.default_rng(0)
    return {
        name: torch.from_numpy(
            np.sort(rng.choice(len(flat), size=min(count, len(flat)), replace=False))
        )
        for name, flat in fine_tune.vectors()
    }


def test_gradient_equals_that_of_the_whole_model(calibration, fine_tune):
    positions = some_positions(fine_tune)
    n = sum(map(len, positions.values()))
    values = torch.randn(n, generator=torch.Generator().manual_seed(0)) * 0.01
    body = calibration._live.shell.body
    before = body.hash()
    with calibration.learner(positions) as learner:
        lesson = next(iter(calibration._lessons))
        learner._lessons = iter([lesson])
        loss, gradient = learner(values)
    assert body.hash() == before
    assert not any(p.requires_grad for p in body.module.parameters())

    parameters = {p.data_ptr(): p for p in body.module.parameters()}
    live = {name: parameters[calibration._live.tensor(name).data_ptr()] for name in positions}
    parts = dict(zip(positions, values.split([len(at) for at in positions.values()]), strict=True))
    with torch.no_grad():
        for name, at in positions.items():
            live[name].view(-1)[at] += parts[name]
    for parameter in live.values():
        parameter.requires_grad_(True)
    with torch.enable_grad():
        whole = calibration._lessons.loss(lesson)
        whole.backward()
    assert loss == pytest.approx(float(whole.detach()), rel=1e-5)
    expected = [
        torch.zeros(len(at)) if live[name].grad is None else live[name].grad.reshape(-1)[at]
        for name, at in positions.items()
    ]
    assert gradient == pytest.approx(torch.cat(expected), rel=1e-3, abs=1e-6)


def test_dense_values_lose_nothing_and_the_base_much(calibration, fine_tune):
    """At the whole task vector the lessons' loss is next to zero."""
    positions = {name: torch.arange(len(flat)) for name, flat in fine_tune.vectors()}
    dense = torch.cat([flat for _, flat in fine_tune.vectors()])
    with calibration.learner(positions) as learner:
        at_dense, _ = learner(dense)
        at_base, _ = learner(torch.zeros_like(dense))
    assert at_dense < 1e-3
    assert at_base > 0.1


def test_a_tied_tensor_is_learned_once(tmp_path):
    """A checkpoint may hold a tied tensor under both of its names."""
    language = make_language(tmp_path, "qwen2")
    base, dense = (
        edit(source, tmp_path / f"{source.name} both",
             lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
        for source in (language.base, language.dense)
    )  # fmt: skip
    fine_tune = FineTune("task", Checkpoint(dense), Checkpoint(base))
    calibration = Calibration(fine_tune, read_rows(language.data), Options())
    vectors = dict(fine_tune.vectors())
    assert "lm_head.weight" not in vectors
    positions = {name: torch.arange(len(flat)) for name, flat in vectors.items()}
    with calibration.learner(positions) as learner:
        loss, gradient = learner(torch.cat(list(vectors.values())))
    assert loss < 1e-3
    found = dict(zip(vectors, gradient.split([len(f) for f in vectors.values()]), strict=True))
    assert found["model.embed_tokens.weight"].any()


def test_a_learned_selection_keeps_more(zoo, tmp_path):
    kept = {}
    for steps in (0, 60):
        options = Options(keep=0.05, steps=steps, evaluations=0)
        source = TaskSource("three", zoo.dense("three"), zoo.data("three"))
        compress(zoo.base, [source], tmp_path / f"{steps}.nps", options=options)
        with Store.open(tmp_path / f"{steps}.nps") as store:
            kept[steps] = store.task("three").meta["check"]["value"]
    assert 1 - kept[60] < 0.7 * (1 - kept[0])
