"""Embeddings are the base's own, and ranks those of the definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from benchmarks.transfer.retrieval import Retrieval
from tests.benchmarks.transfer.conftest import PAIRS

if TYPE_CHECKING:
    from benchmarks.quality.tasks import FineTune
    from benchmarks.transfer.bench import Bench


@pytest.fixture
def retrieval(bench: Bench, fine_tunes: list[FineTune]) -> Retrieval:
    return Retrieval(fine_tunes[0].base, bench.problem.layout, PAIRS, "cpu", batch=7)


def test_embeddings_are_those_of_each_text_alone(
    retrieval: Retrieval, bench: Bench, fine_tunes: list[FineTune]
) -> None:
    base = fine_tunes[0].base
    model, tokenizer = AutoModel.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)
    found = retrieval.embeddings(bench.problem.task.base)
    texts = [pair.query for pair in PAIRS] + [pair.document for pair in PAIRS]
    assert found.shape == (len(texts), 32)
    for row, text in zip(found[::9], texts[::9], strict=True):
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        mean = hidden.mean(0)
        torch.testing.assert_close(row, mean / mean.norm(), atol=1e-5, rtol=1e-4)


def test_ranks_are_those_of_the_definition(retrieval: Retrieval, bench: Bench) -> None:
    weights = bench.problem.task.dense
    queries, documents = retrieval.embeddings(weights).numpy().reshape(2, len(PAIRS), -1)
    ranks = []
    for number, query in enumerate(queries):
        similarity = documents @ query
        ranks.append(1 + sum(np.delete(similarity, number) >= similarity[number]))
    found = retrieval.scores(weights)
    assert found.recall == pytest.approx(np.mean(np.array(ranks) == 1), abs=0.04)
    assert found.mrr == pytest.approx(np.mean(1 / np.array(ranks)), abs=0.02)
    assert found.mrr > found.recall


def test_a_body_that_says_nothing_finds_nothing(retrieval: Retrieval, bench: Bench) -> None:
    for value in (0.0, torch.nan):
        found = retrieval.scores(torch.full_like(bench.problem.task.base, value))
        assert found.recall == 0
        assert found.mrr == pytest.approx(1 / len(PAIRS))
