"""Known answers are right by another computation, and a wrong one is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from formats import dither
from nps_store.selftest import CHECKS, decoding, run, searching
from tests.nps_store.selftest.generate import SHAPES, bits_of


def plain_weights(task: str) -> dict[str, torch.Tensor]:
    """The generator's formulas on plain arrays, without any record or codec."""
    weights = {name: bits_of(shape).view("<f4").copy() for name, shape in SHAPES.items()}
    if task == "ranked":
        for name, flat in weights.items():
            seed = dither.tensor_seed("known", name)
            at = np.arange(flat.size)
            kept = dither.uniform(seed, 0, flat.size) < (0.5 + at % 97 / 97) / 6
            flat[kept] += np.where(at[kept] % 3 == 0, -1, 1).astype(np.float32) / 128
    else:
        at = np.arange(11, 105_000, 97)
        weights["wide.weight"][at] += (at % 5 - 2).astype(np.float32) / 64
        rows = ((np.arange(40) + 1) / 4096).astype(np.float32).repeat(40)
        weights["square.weight"] += (np.arange(1600) % 7 - 3).astype(np.float32) * rows
        bits = (np.arange(40) * 2654435761 % 2**32).astype("<u4")
        weights["bias"] = (weights["bias"].view("<u4") ^ bits).view("<f4")
    return {name: torch.from_numpy(flat).reshape(SHAPES[name]) for name, flat in weights.items()}


@pytest.mark.parametrize("task", decoding.WEIGHTS)
def test_known_weights_are_those_of_the_formulas(task):
    assert decoding.digest(plain_weights(task)) == decoding.WEIGHTS[task]


def test_known_selection_keeps_what_scores_most():
    """By sorting all scores, where the search takes cut-offs of sorted bands."""
    ((name, tau),) = searching._task_vector()
    magnitude = tau.abs().numpy()
    u = dither.uniform(dither.tensor_seed("known", name), 0, magnitude.size)
    score = np.where(magnitude > 0, magnitude / u, 0)
    pool = searching.collect(
        searching._task_vector, rule=searching.RULES["nps"], max_keep=lambda n: n, seed="known"
    )
    neutral = searching.Candidate.neutral(6)
    kept = searching.Selector(pool).select(neutral, keep=searching.N_KEPT).positions.numpy()
    assert set(kept) == set(np.argsort(-score, kind="stable")[: searching.N_KEPT])


def test_all_checks_pass_here():
    outcomes = list(run())
    assert [outcome.check for outcome in outcomes] == list(CHECKS)
    assert [o for o in outcomes if o.passed is False] == []
    assert sum(outcome.passed is True for outcome in outcomes) >= 5
