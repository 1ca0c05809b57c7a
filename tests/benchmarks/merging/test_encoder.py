"""One body with all heads answers as every fine-tune does alone."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from benchmarks.merging.encoder import Answered, Encoder
from benchmarks.methods.gram import input_grams
from tests.nps_store.models import probabilities

if TYPE_CHECKING:
    from benchmarks.merging.load import Loaded
    from benchmarks.merging.problem import MergeProblem
    from benchmarks.quality.tasks import FineTune


def test_every_head_says_what_its_own_model_says(
    merging: Loaded, fine_tunes: list[FineTune]
) -> None:
    problem = merging.problem
    for source, delta in zip(fine_tunes, problem.deltas, strict=True):
        rows = [json.loads(line) for line in source.data("test").read_text().splitlines()]
        config = AutoModelForSequenceClassification.from_pretrained(source.path).config
        said = probabilities(source.path, [row["text"] for row in rows]).argmax(-1).tolist()
        right = [config.id2label[i] == row["label"] for i, row in zip(said, rows, strict=True)]
        one = {source.name: merging.test[source.name]}
        score = problem.encoder.scores(problem.base + delta, one)[source.name]
        assert score.accuracy == pytest.approx(np.mean(right))
        assert score.divergence == pytest.approx(0, abs=1e-5)


def test_divergence_is_that_of_the_definition(problem: MergeProblem) -> None:
    data = problem.calibration["three"]
    score = problem.encoder.scores(problem.base, {"three": data})["three"]
    problem.encoder.put_(problem.base)
    total = 0.0
    for batch, expected in zip(data.batches, data.expected, strict=True):
        p = expected.double().exp().numpy()
        q = problem.encoder.logits("three", batch.inputs).softmax(-1).double().numpy()
        total += float((p * np.log(p / q)).sum())
    assert score.divergence == pytest.approx(total / data.n_rows, rel=1e-4)
    assert score.divergence > 0.01


def test_the_differentiable_pass_is_the_same(problem: MergeProblem) -> None:
    inputs = problem.calibration["five"].batches[0].inputs
    problem.encoder.put_(problem.base)
    expected = problem.encoder.logits("five", inputs)
    problem.encoder.put_(torch.zeros_like(problem.base))
    weights = problem.base.clone().requires_grad_()
    logits = problem.encoder.logits_at(weights, "five", inputs)
    torch.testing.assert_close(logits, expected)
    (gradient,) = torch.autograd.grad(logits.sum(), weights)
    assert gradient.shape == weights.shape
    assert gradient.count_nonzero() > len(gradient) // 2


def test_losses_are_of_what_they_are_named_after(merging: Loaded) -> None:
    problem = merging.problem
    scores = problem.encoder.scores(problem.base + problem.mean, problem.calibration).values()
    wrong = 1 - np.mean([score.accuracy for score in scores])
    divergence = np.mean([score.divergence for score in scores])
    assert problem.loss(problem.mean) == pytest.approx(wrong + 1e-4 * divergence)
    tasks = [problem.task_loss(task, problem.mean) for task in problem.tasks]
    assert np.mean(tasks) == pytest.approx(problem.loss(problem.mean))
    assert problem.task_loss("two", problem.deltas[0]) < min(tasks) + 1e-6


def test_grams_leave_padding_out(problem: MergeProblem) -> None:
    """As a pass text by text, without padding, has them."""
    encoder, data = problem.encoder, problem.calibration["three"]
    encoder.put_(problem.base)
    layers = {span.name: encoder.layer(span.name) for span in problem.linear}
    found = input_grams(layers, data.batches, lambda b: encoder.logits("three", b.inputs))
    expected: dict[str, torch.Tensor] = {}
    for batch in data.batches:
        for row, mask in enumerate(batch.inputs["attention_mask"]):
            n = int(mask.sum())
            alone = {k: v[row : row + 1, :n] for k, v in batch.inputs.items()}
            single = type(batch)(alone, batch.labels[row : row + 1])
            for name, gram in input_grams(
                layers, [single], lambda b: encoder.logits("three", b.inputs)
            ).items():
                expected[name] = expected.get(name, 0) + gram
    for name, gram in found.items():
        torch.testing.assert_close(gram, expected[name], rtol=1e-3, atol=1e-3)


def test_a_body_of_another_dtype_is_refused(problem: MergeProblem, fine_tunes) -> None:
    module = AutoModelForSequenceClassification.from_pretrained(
        fine_tunes[0].path, dtype=torch.bfloat16
    )
    names = {s.name: f"bert.{s.name}" for s in problem.layout.spans}
    with pytest.raises(ValueError, match=r"expected torch\.float32"):
        Encoder(module, problem.layout, names, {})


def test_halves_share_no_text_and_leave_none_out(problem: MergeProblem) -> None:
    parts = [half.calibration["three"] for half in problem.halves()]
    whole = problem.calibration["three"]
    assert [part.n_rows for part in parts] == [8, 8]
    ids = [part.batches[0].inputs["input_ids"] for part in parts]
    interleaved = torch.stack(ids, 1).flatten(0, 1)
    assert torch.equal(interleaved, whole.batches[0].inputs["input_ids"])
    losses = [half.task_loss("three", problem.mean) for half in problem.halves()]
    assert np.mean(losses) == pytest.approx(problem.task_loss("three", problem.mean), rel=1e-4)


def test_rows_are_counted_over_batches(problem: MergeProblem) -> None:
    data = problem.calibration["two"]
    assert data.n_rows == 16
    twice = Answered(data.batches * 2, data.expected * 2)
    one, two = (problem.encoder.scores(problem.base, {"two": d})["two"] for d in (data, twice))
    assert math.isclose(one.divergence, two.divergence, rel_tol=1e-9)
    assert one.accuracy == two.accuracy
