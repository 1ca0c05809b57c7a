"""What holds for every method: a vector for the base, tuned on calibration data, and better than
nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks.merging import METHODS
from benchmarks.merging.method import Estimated, Merged, Tuned
from benchmarks.methods.tuning import best_scale

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.merging.problem import MergeProblem


@pytest.fixture(scope="module")
def merged() -> dict[str, Merged]:
    """Each method's vector, made once."""
    return {}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_better_than_the_base(
    name: str, problem: MergeProblem, merged: dict[str, Merged]
) -> None:
    merged[name] = found = METHODS[name].merge(problem)
    assert found.delta.shape == problem.base.shape
    assert found.delta.dtype == torch.float32
    loss = problem.loss(found.delta)
    assert loss < problem.loss(torch.zeros_like(problem.base))
    if isinstance(METHODS[name], Estimated):
        assert found.tuned["loss"] > 0
    elif "loss" in found.tuned:
        assert loss == pytest.approx(found.tuned["loss"], rel=1e-5)


def test_a_factor_on_the_mean_is_no_worse_than_the_mean(
    problem: MergeProblem, merged: dict[str, Merged]
) -> None:
    average = problem.loss(merged["weight averaging"].delta)
    assert problem.loss(merged["Task Arithmetic"].delta) <= average + 1e-9


def test_estimates_are_judged_by_texts_that_they_have_not_seen(problem: MergeProblem) -> None:
    """RegMean's settings are those that a hand-made split gives."""
    method, (seen, unseen) = METHODS["RegMean"], problem.halves()
    tried = {
        tuple(setting.items()): best_scale(unseen, vector, method.scales)
        for setting, vector in method.candidates(seen)
    }
    setting = min(tried, key=lambda key: tried[key][1])
    found = method.merge(problem)
    assert found.tuned == {**dict(setting), "scale": tried[setting][0], "loss": tried[setting][1]}
    vectors = {tuple(s.items()): vector for s, vector in method.candidates(problem)}
    assert torch.equal(found.delta, vectors[setting] * tried[setting][0])


class Parabola:
    """Least at the vector of ones."""

    def loss(self, delta: torch.Tensor) -> float:
        return float((delta - 1).square().sum())


class Two(Tuned[Parabola]):
    """One candidate that a scale can make right, and one that none can."""

    name = "two"

    def candidates(self, problem: Parabola) -> Iterator[tuple[dict[str, str], torch.Tensor]]:
        yield {"which": "skew"}, torch.tensor([1.0, 3.0])
        yield {"which": "even"}, torch.tensor([0.5, 0.5])


class Nothing(Tuned[Parabola]):
    """Has no candidate."""

    name = "nothing"

    def candidates(self, problem: Parabola) -> Iterator[tuple[dict[str, str], torch.Tensor]]:
        yield from ()


def test_the_best_candidate_is_taken_at_its_best_scale() -> None:
    found = Two().merge(Parabola())
    assert found.tuned["which"] == "even"
    assert found.tuned["scale"] == pytest.approx(2, rel=0.02)
    torch.testing.assert_close(found.delta, torch.ones(2), rtol=0.02, atol=0)
    with pytest.raises(ValueError, match="nothing: no candidates"):
        Nothing().merge(Parabola())
