"""Which fine-tunes there are, and the problems that methods are given of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import transformers
import xxhash

from benchmarks.debian import TASKS
from benchmarks.methods.forward import Forward, Reference
from benchmarks.methods.layout import Layout, kinds_of
from benchmarks.methods.overhead import files_nbytes, stored_head
from benchmarks.methods.problem import Problem, Receiver, Source
from benchmarks.quality.data import batches_of
from benchmarks.quality.held_out import HeldOut
from nps_store.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor, nn

CLASSIFIERS = "classifiers"
SHIFTS = ("light", "heavy")
N_CALIBRATION_TEXTS = 64
"""Texts of a language model's calibration data that baselines are tuned on; all of a classifier's.
"""


@dataclass(frozen=True)
class FineTune:
    """Where one fine-tune and its data lie.

    Attributes:
        group: Fine-tunes of one base and one kind, over which results are averaged.
        name: Of the task.
        base: Directory of the base.
        zoo: Folder of the fine-tunes and of `data`.
    """

    group: str
    name: str
    base: Path
    zoo: Path

    @property
    def path(self) -> Path:
        """Its directory."""
        return self.zoo / self.name

    def data(self, split: str) -> Path:
        """Its JSON lines of a split."""
        return self.zoo / "data" / f"{self.name}.{split}.jsonl"


def classifiers(zoo: Path, base: Path) -> list[FineTune]:
    """Those of a zoo that have been trained."""
    return [FineTune(CLASSIFIERS, name, base, zoo) for name in TASKS if (zoo / name).is_dir()]


def find(zoo: Path, lm_zoo: Path, base: Path) -> list[FineTune]:
    """All fine-tunes of the two zoos that have been trained."""
    found = classifiers(zoo, base)
    for shift in SHIFTS:
        found += [
            FineTune(f"lm-{shift}", path.name, lm_zoo / "base", lm_zoo)
            for path in sorted(lm_zoo.glob(f"*-{shift}"))
            if path.is_dir()
        ]
    return found


def find_in(folder: Path, base: Path) -> list[FineTune]:
    """The fine-tunes of a folder of one's own: model directories, and `data/NAME.SPLIT.jsonl` of
    each for calibration and test."""
    return [
        task
        for path in sorted(folder.iterdir())
        if (path / "config.json").is_file() and path.resolve() != base.resolve()
        if all((task := FineTune(folder.name, path.name, base, folder)).data(split).is_file()
               for split in ("calibration", "test"))
    ]  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """A problem, and the test data that its methods do not see."""

    problem: Problem
    held_out: HeldOut


def load(
    task: FineTune, group: Sequence[FineTune], device: str, *, n_rows: int | None = None
) -> Loaded:
    """Load one task; the task vectors of its group are read when a method asks for them.

    Args:
        task: The fine-tune.
        group: All fine-tunes that a multi-task method merges.
        device: Where the model runs.
        n_rows: Rows of calibration data to use, at most; a default by kind of model.

    Raises:
        ValueError: The fine-tune has tensors of other shapes than the base.
    """
    base, own = Checkpoint(task.base), Checkpoint(task.path)
    module = load_module(task.path).to(device)
    names = body_names(module, base)
    kinds = dict(kinds_of(module).items())
    layout = Layout.of(
        {name: base.shape(name) for name in names},
        {name: kinds[own_name] for name, own_name in names.items() if own_name in kinds},
    )
    weights = layout.flatten({name: base.tensor(name) for name in names}, device)
    dense = dense_weights(layout, own, names, device)
    body = set(names.values())
    dense_head = {n: p.detach() for n, p in module.named_parameters() if n not in body}
    head, head_nbytes = stored_head(dense_head)
    forward = Forward(module, layout, names, head=head, dense_head=dense_head)
    is_lm = module.config.architectures[0].endswith("ForCausalLM")
    rows = n_rows or (N_CALIBRATION_TEXTS if is_lm else None)
    batches = partial(batches_of, model=task.path, config=module.config, device=device)
    problem = Problem(
        task=task.name,
        receiver=Receiver(
            layout, weights.cpu(), {name: base.dtype(name) for name in names}, _seed(task.name)
        ),
        forward=forward,
        base=weights,
        dense=dense,
        delta=dense - weights,
        calibration=Reference(forward, dense, batches(task.data("calibration"), n_rows=rows)),
        group=cache(
            lambda: [
                dense_weights(layout, Checkpoint(other.path), names, device) - weights
                for other in group
            ]
        ),
        n_tasks=len(group),
        overhead_nbytes=head_nbytes + files_nbytes(own, base),
        source=Source(task.base, task.path, task.data("calibration"), device),
    )
    return Loaded(problem, HeldOut(forward, weights, dense, batches(task.data("test"))))


def load_module(path: Path) -> nn.Module:
    """The model of a Hugging Face directory, in the class and dtype that it names."""
    architecture = json.loads((path / "config.json").read_text())["architectures"][0]
    return getattr(transformers, architecture).from_pretrained(path, dtype="auto")


def body_names(module: nn.Module, base: Checkpoint) -> dict[str, str]:
    """Base's tensor names to the module's, of what both have, in the base's order."""
    prefix = f"{module.base_model_prefix}."
    own = {name: name for name, _ in module.named_parameters()}
    own |= {name.removeprefix(prefix): name for name in own}
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    names = {name: own[name] for name in base.names if name in own}
    for name, own_name in names.items():
        if shapes[own_name] != tuple(base.shape(name)):
            raise ValueError(f"tensor {own_name!r} has another shape than in the base")
    return names


def dense_weights(
    layout: Layout, checkpoint: Checkpoint, names: dict[str, str], device: str
) -> Tensor:
    """float32 [numel] of a fine-tune."""
    return layout.flatten({name: checkpoint.tensor(own) for name, own in names.items()}, device)


def _seed(name: str) -> int:
    return xxhash.xxh32_intdigest(name.encode())
