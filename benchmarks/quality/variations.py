"""Variations of the method, one choice changed at a time, searched and scored."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING, Any, Literal

import torch

from benchmarks.methods.nps import Nps
from benchmarks.quality import paper_order
from nps_store.search import RULES, Plan, RateSearch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.methods.problem import Problem
    from benchmarks.quality.tasks import Loaded
    from nps_store.search import Selection

STORED = "stored"
"""What a store holds: searched as `nps`, then learned, coded and read back."""
KEEPS = {"topk": 0.04, "nps": 0.005, STORED: 0.003}
BANDS = (1, 2, 4, 6, 8, 12, 16, 24)
SIZES = (32, 64, 128, 256, 512)
SEEDS = (0, 1, 2, 3, 4)


@dataclasses.dataclass(frozen=True)
class Case:
    """One variation of the method.

    Attributes:
        name: What is varied, and to what.
        rule: Name of the rule that is varied.
        change: Fields of the rule that differ.
        n_rows: Calibration rows; None is all.
        seed: Of search and dither.
        measure: What the search minimises: KL to the dense fine-tune, or the loss on labels.
        prune_after: Search on the unpruned vector, prune after: the paper's order.
        options: Of the compression, where it is what a store holds that is varied.
    """

    name: str
    rule: str
    change: dict[str, Any] = dataclasses.field(default_factory=dict)
    n_rows: int | None = None
    seed: int = 0
    measure: Literal["distill", "loss"] = "distill"
    prune_after: bool = False
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


def cases(rule: str) -> Iterator[Case]:
    """All variations of one rule."""
    yield Case("as it is", rule)
    if rule == STORED:
        yield Case("not learned", rule, options={"steps": 0})
        yield Case("twice as many steps", rule, options={"steps": 300})
        yield Case("not searched but for a ramp", rule, options={"evaluations": 0})
    else:
        yield from _of_rule(rule)
    for seed in SEEDS[1:]:
        yield Case(f"seed {seed}", rule, seed=seed)


def _of_rule(rule: str) -> Iterator[Case]:
    for n_bands in BANDS:
        yield Case(f"M = {n_bands}", rule, {"n_bands": n_bands})
    yield Case("equal-count bands", rule, {"spacing": "count"})
    yield Case("scope: each tensor", rule, {"scope": "tensor"})
    yield Case("no search", rule, {"searched": False})
    yield Case("loss on labels", rule, measure="loss")
    if rule == "topk":
        name = "loss on labels, search first, prune after"
        yield Case(name, rule, measure="loss", prune_after=True)
    for n_rows in SIZES:
        yield Case(f"{n_rows} calibration texts", rule, n_rows=n_rows)


class Objective:
    """The search's view of a problem: losses of selections as shares of the base's.

    Implements `nps_store.search.Objective`.
    """

    def __init__(self, problem: Problem, measure: Literal["distill", "loss"] = "distill") -> None:
        self._problem = problem
        self._starts = {span.name: span.start for span in problem.layout.spans}
        reference = problem.calibration
        self._loss = reference.loss if measure == "distill" else reference.label_loss
        self._base_loss = self._loss(problem.base)

    def loss(self, selection: Selection) -> float:
        """Loss on all calibration data over the base's."""
        return self.loss_of(self.delta(selection))

    def loss_of(self, delta: torch.Tensor) -> float:
        """The same of a whole vector."""
        return self._loss(self._problem.base + delta) / self._base_loss

    def check(self, selection: Selection) -> float:  # noqa: ARG002 (the rate is given)
        """Nothing is set aside."""
        return math.nan

    def delta(self, selection: Selection) -> torch.Tensor:
        """float32 [numel] of a selection."""
        delta = torch.zeros_like(self._problem.base)
        for name, span, positions in selection.tensors():
            place = (positions + self._starts[name]).to(delta.device)
            delta[place] = selection.values_in(span).to(delta.device)
        return delta


def vectors(problem: Problem) -> Iterator[tuple[str, torch.Tensor]]:
    """The task vector as the search reads it."""
    for span, tensor in problem.layout.views(problem.delta):
        yield span.name, tensor.reshape(-1)


def measure(loaded: Loaded, case: Case, evaluations: int) -> dict[str, Any]:
    """Search as a case says, and score what it keeps on test data.

    Raises:
        TypeError: The search offers no such variation.
    """
    start = time.perf_counter()
    problem = loaded.problem
    if case.rule == STORED:
        return {**_stored(loaded, case), "seconds": round(time.perf_counter() - start, 2)}
    objective = Objective(problem, case.measure)
    keep = KEEPS[case.rule]
    if case.prune_after:
        n_evaluations = evaluations
        delta = paper_order.solve(
            problem.delta, keep, objective.loss_of, seed=case.seed, evaluations=evaluations
        )
    else:
        search = RateSearch(
            lambda: vectors(problem),
            dataclasses.replace(RULES[case.rule], **case.change),
            objective,
            plan=Plan(evaluations=evaluations, seed=case.seed),
            seed=f"{case.seed}:{problem.task}",
            device=problem.delta.device.type,
        )
        delta = objective.delta(search.at_keep(keep).selection)
        n_evaluations = search.n_evaluations
    return {
        **dataclasses.asdict(case),
        "task": problem.task,
        "keep": keep,
        "n_evaluations": n_evaluations,
        "calibration_loss": objective.loss_of(delta),
        **loaded.held_out.scores(delta),
        "seconds": round(time.perf_counter() - start, 2),
    }


def _stored(loaded: Loaded, case: Case) -> dict[str, Any]:
    setting = {"keep": KEEPS[STORED]}
    method = Nps(options={"seed": case.seed, **case.options})
    compressed = method.compress(loaded.problem, setting)
    return {
        **dataclasses.asdict(case),
        "task": loaded.problem.task,
        **setting,
        "nbytes": compressed.nbytes,
        **loaded.held_out.scores(compressed.delta, compressed.head),
    }
