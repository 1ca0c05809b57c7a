"""The functional model is the module itself; quality is 1 for the fine-tune, 0 for the base."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from benchmarks.methods.overhead import stored_head
from tests.nps_store.models import probabilities

if TYPE_CHECKING:
    from benchmarks.quality.tasks import FineTune, Loaded


def test_dense_weights_give_the_dense_models_answers(
    loaded: Loaded, fine_tunes: list[FineTune]
) -> None:
    problem = loaded.problem
    batch = problem.calibration.batches[0]
    logits = problem.forward.logits(problem.dense, batch, head=problem.forward.dense_head)
    model = AutoModelForSequenceClassification.from_pretrained(fine_tunes[2].path).eval()
    with torch.inference_mode():
        expected = model(**batch.inputs).logits
    torch.testing.assert_close(logits, expected)
    assert probabilities(fine_tunes[2].path, ["a tool"]).shape[1] == logits.shape[1]


def test_every_tensor_is_body_or_head(loaded: Loaded) -> None:
    forward = loaded.problem.forward
    names = [*forward.names.values(), *forward.head]
    assert sorted(names) == sorted(name for name, _ in forward.module.named_parameters())
    assert set(forward.head) == {"classifier.weight", "classifier.bias"}


def test_scores_of_the_fine_tune_and_of_the_base(loaded: Loaded) -> None:
    problem, held_out = loaded.problem, loaded.held_out
    own = problem.forward.dense_head
    assert held_out.scores(problem.delta, own)["gain_kept"] == pytest.approx(1, abs=1e-5)
    assert held_out.scores(problem.delta, own)["accuracy_ratio"] == 1
    assert held_out.scores(torch.zeros_like(problem.delta), own)["gain_kept"] == 0
    assert held_out.base[0] > held_out.dense[0]


def test_divergence_is_zero_at_the_fine_tune_and_has_a_gradient(loaded: Loaded) -> None:
    problem = loaded.problem
    assert problem.loss(problem.delta) < 1e-3 * problem.base_loss
    share = torch.tensor(0.5, requires_grad=True)
    loss = problem.calibration.divergence(problem.base + share * problem.delta, 0)
    loss.backward()
    assert share.grad is not None
    assert share.grad < 0


def test_the_head_is_stored_in_eight_bits_a_row() -> None:
    torch.manual_seed(0)
    head = {"weight": torch.randn(5, 64), "bias": torch.randn(5)}
    seen, nbytes = stored_head(head)
    assert torch.equal(seen["bias"], head["bias"])
    error = (seen["weight"] - head["weight"]).abs()
    assert (error <= head["weight"].abs().amax(1, keepdim=True) / 253).all()
    assert 5 * 64 < nbytes < 5 * 64 + 300
    assert stored_head({}) == ({}, 0)
