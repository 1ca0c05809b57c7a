"""This project's fusion (Neural Parameter Search, ACL 2025, section 3.3): stored, then merged.

The fine-tunes are compressed into one store, `nps merge` searches a weight for each of them, and
what its recipe makes of the store is what is measured.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, finalize

from benchmarks.merging.method import Merged
from nps_store.calibration import read_rows
from nps_store.compress import Options, TaskSource, compress
from nps_store.fusion import FusionPlan, LiveMerge, fuse
from nps_store.recipes.writing import add_recipe
from nps_store.store import Store

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.merging.problem import MergeProblem

MOST_JOBS = 4
"""Tasks that a GPU compresses at a time; each takes a few cores beside it."""


@dataclass(frozen=True)
class NpsFusion:
    """`nps compress`, then `nps merge --method nps`.

    Attributes:
        name: In results.
        plan: Of the search; its groups are bounded by the layers that there are.
    """

    name: str
    plan: FusionPlan

    def merge(self, problem: MergeProblem) -> Merged:
        """What the recipe's tasks have in common: the body."""
        sources = problem.sources
        base, device = sources[0].base, problem.base.device
        rows = {
            each.name: read_rows(each.data("calibration"))[: problem.calibration[each.name].n_rows]
            for each in sources
        }
        path = _stored(problem)
        with Store.open(path, base=base) as store:
            live = LiveMerge(store, rows, device=device.type, seed=self.plan.seed)
            fused = fuse(live, live.bounded(self.plan))
        first, *_ = add_recipe(path, "all", fused.recipe, replace=True)
        with Store.open(path, base=base) as store:
            nbytes, body = store.task(first).nbytes, _body(store, first, problem)
        tuned = {
            "gain_lost": fused.loss, "evaluations": fused.n_evaluations, "recipe_nbytes": nbytes,
            "groups": fused.recipe.n_groups, "members": dict(fused.recipe.members),
        }  # fmt: skip
        return Merged(body.to(device) - problem.base, tuned)


_STORES: WeakKeyDictionary[MergeProblem, Path] = WeakKeyDictionary()


def _stored(problem: MergeProblem) -> Path:
    """The store of the fine-tunes, which all searches merge, or a copy of the given one; it goes
    with the problem."""
    path = _STORES.get(problem)
    if path is None:
        directory = tempfile.mkdtemp(prefix="nps-fusion-")
        finalize(problem, shutil.rmtree, directory)
        path = _STORES[problem] = Path(directory) / "all.nps"
        if problem.store is not None:
            return Path(shutil.copy(problem.store, path))
        sources, device = problem.sources, problem.base.device.type
        tasks = [TaskSource(each.name, each.path, each.data("calibration")) for each in sources]
        jobs = 1 if device == "cpu" else min(MOST_JOBS, max(1, (os.cpu_count() or 1) // 4))
        compress(sources[0].base, tasks, path, options=Options(device=device), jobs=jobs)
    return path


def _body(store: Store, name: str, problem: MergeProblem) -> Tensor:
    """float32 [numel], a task's body."""
    prefix, tensors = store.task(name).directory.prefix, store.materialize(name)
    return problem.layout.flatten(
        {span.name: tensors[prefix + span.name] for span in problem.layout.spans}, "cpu"
    )
