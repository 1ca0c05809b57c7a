"""This project's fusion (Neural Parameter Search, ACL 2025, section 3.3): stored, then merged.

The fine-tunes are compressed into one store, `nps merge` searches a weight for each of them, and
what its recipe makes of the store is what is measured.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.merging.method import Merged
from nps_store.calibration import read_rows
from nps_store.compress import Options, TaskSource, compress
from nps_store.fusion import FusionPlan, LiveMerge, fuse
from nps_store.recipes.writing import add_recipe
from nps_store.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from benchmarks.merging.problem import MergeProblem


@dataclass(frozen=True)
class NpsFusion:
    """`nps compress`, then `nps merge --method nps`.

    Attributes:
        name: In results.
        plan: Of the search; its groups are bounded by the layers that there are.
        options: Of the compression.
    """

    name: str
    plan: FusionPlan
    options: Mapping[str, Any] = field(default_factory=dict)

    def merge(self, problem: MergeProblem) -> Merged:
        """What the recipe's tasks have in common: the body."""
        sources = problem.sources
        base, device = sources[0].base, problem.base.device
        tasks = [TaskSource(each.name, each.path, each.data("calibration")) for each in sources]
        rows = {
            each.name: read_rows(each.data("calibration"))[: problem.calibration[each.name].n_rows]
            for each in sources
        }
        with tempfile.TemporaryDirectory(prefix="nps-fusion-") as directory:
            path = Path(directory) / "all.nps"
            compress(base, tasks, path, options=Options(device=device.type, **self.options))
            with Store.open(path, base=base) as store:
                live = LiveMerge(store, rows, device=device.type, seed=self.plan.seed)
                fused = fuse(live, live.bounded(self.plan))
            first, *_ = add_recipe(path, "all", fused.recipe)
            with Store.open(path, base=base) as store:
                nbytes, body = store.task(first).nbytes, _body(store, first, problem)
        tuned = {
            "gain_lost": fused.loss, "evaluations": fused.n_evaluations, "recipe_nbytes": nbytes,
            "groups": fused.recipe.n_groups, "members": dict(fused.recipe.members),
        }  # fmt: skip
        return Merged(body.to(device) - problem.base, tuned)


def _body(store: Store, name: str, problem: MergeProblem) -> Tensor:
    """float32 [numel], a task's body."""
    prefix, tensors = store.task(name).directory.prefix, store.materialize(name)
    return problem.layout.flatten(
        {span.name: tensors[prefix + span.name] for span in problem.layout.spans}, "cpu"
    )
