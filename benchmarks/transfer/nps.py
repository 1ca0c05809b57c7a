"""This project's transfer (Neural Parameter Search, ACL 2025, section 3.2): stored, then weighted.

The fine-tune is compressed at the allowed share by the paper's own rule, which keeps real values
that magnitude bands can tell apart; `nps transfer` searches lambda and the weights of these bands,
and what the recipe makes of the store is what is measured.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary, finalize

import torch

from benchmarks.merging.method import Merged
from nps_store.calibration import Row, read_rows
from nps_store.compress import Options, TaskSource, compress
from nps_store.recipes.writing import add_recipe
from nps_store.store import Store
from nps_store.transfer import LiveTransfer, transfer

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.methods.problem import Problem
    from benchmarks.transfer.problem import TransferProblem
    from nps_store.recipes import Recipe
    from nps_store.transfer import TransferPlan

MAX_WORDS = 48
"""Of a text of the base's, about the tokens that its ability is measured with."""


@dataclass(frozen=True)
class NpsTransfer:
    """`nps compress --method topk --keep`, then `nps transfer --calib --retain`.

    Attributes:
        name: In results.
        plan: Of the search; its groups are bounded by the layers that there are.
        labelled: Whether the search sees what other methods are tuned on, the H-score with labels
            and pairs, instead of the product's own measure, which needs neither.
    """

    name: str
    plan: TransferPlan
    labelled: bool = False

    def merge(self, problem: TransferProblem) -> Merged:
        """The body of the recipe's task."""
        task, base = problem.task, problem.task.source.base
        path = _stored(problem)
        rows = read_rows(task.source.calibration)[: problem.n_rows]
        texts = [Row(" ".join(text.split()[:MAX_WORDS])) for text in problem.base_texts]
        with Store.open(path, base=base) as store:
            live = LiveTransfer(
                store, task.task, rows, {"base": texts}, device=task.source.device,
                seed=self.plan.seed,
            )  # fmt: skip
            judge = _Labelled(live, problem, store) if self.labelled else live
            found = transfer(judge, live.bounded(self.plan))
        add_recipe(path, "part", found.recipe, replace=True)
        with Store.open(path, base=base) as store:
            nbytes = store.task("part").nbytes
            delta = _body(store, "part", task).to(task.base.device) - task.base
        tuned = {
            "loss": problem.loss(delta), "lost": found.loss, "evaluations": found.n_evaluations,
            "recipe_nbytes": nbytes, "members": dict(found.recipe.members),
            "params": dict(found.recipe.params),
        }  # fmt: skip
        return Merged(delta, tuned)


class _Labelled:
    """The other methods' loss of what a recipe makes of the base."""

    def __init__(self, live: LiveTransfer, problem: TransferProblem, store: Store) -> None:
        self.task, self.edges = live.task, live.edges
        self._live, self._problem = live, problem
        self._names = [tensor.name for tensor in store.base_tensors]

    def loss(self, recipe: Recipe) -> float:
        """To be minimised."""
        layout, delta = self._problem.layout, torch.zeros_like(self._problem.delta)
        spans = {span.name: span for span in layout.spans}
        for name, patch in self._live.changes(recipe):
            if name in spans:
                delta[spans[name].place].index_copy_(0, patch.index, patch.delta())
        return self._problem.loss(delta)


_STORES: Final[WeakKeyDictionary[Problem, Path]] = WeakKeyDictionary()


def _stored(problem: TransferProblem) -> Path:
    """The store of the fine-tune, which all searches start from; it goes with the problem."""
    task = problem.task
    path = _STORES.get(task)
    if path is None:
        directory = tempfile.mkdtemp(prefix="nps-transfer-")
        finalize(task, shutil.rmtree, directory)
        path = _STORES[task] = Path(directory) / "one.nps"
        source = TaskSource(task.task, task.source.fine_tune, task.source.calibration)
        options = Options(device=task.source.device, method="topk", keep=problem.keep)
        compress(task.source.base, [source], path, options=options)
    return path


def _body(store: Store, name: str, task: Problem) -> Tensor:
    """float32 [numel], a task's body."""
    tensors, names = store.materialize(name), task.forward.names
    return task.layout.flatten({own: tensors[names[own]] for own in names}, "cpu")
