"""The metric of a stored task, beside that of its base and of its dense fine-tune."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import exp
from typing import TYPE_CHECKING, Any, Literal

import torch

from nps_store.adapters import open_fine_tune
from nps_store.calibration import Examples, Losses, Quality, Row, Runner, gain_kept, read_rows
from nps_store.checkpoint import DTYPES
from nps_store.errors import BadOptionError, CalibrationError
from nps_store.modeling import Body, LiveBase, Shell
from nps_store.modeling.shell import Pooling, load_tokenizer
from nps_store.modeling.ties import Ties

if TYPE_CHECKING:
    import os

    from nps_store.adapters import FineTuneSource
    from nps_store.modeling.shell import Kind
    from nps_store.store import Store

Metric = Literal["accuracy", "loss", "cosine to dense"]
TOKENIZER_NAMES = ("tokenizer_config.json", "tokenizer.json")
"""Beside these lies what else a tokenizer is made from; an adapter's are its base's, often."""


@dataclass(frozen=True)
class Evaluation:
    """A metric of the stored task.

    Attributes:
        metric: "accuracy" of classifiers, "loss" of language models (mean over the texts of the
            mean cross entropy of their tokens, in nats), "cosine to dense" of vectors.
        stored: Of the stored task.
        n_examples: Examples evaluated on.
        n_truncated: Texts that were cut to the model's limit.
        base: Of the base's body with the task's head, or None where the task has another body.
        dense: Of the dense fine-tune, or None.
        ratio: stored / dense of accuracies and cosines, or None.
        gain_kept: Share of the fine-tune's gain in loss over the base, or None.
        agreement: Share of examples with the same predicted class, or None.
    """

    metric: Metric
    stored: float
    n_examples: int
    n_truncated: int
    base: float | None = None
    dense: float | None = None
    ratio: float | None = None
    gain_kept: Quality | None = None
    agreement: float | None = None

    @property
    def perplexity(self) -> dict[str, float | None] | None:
        """exp(loss) of base, stored task and dense fine-tune; None but for language models."""
        if self.metric != "loss":
            return None
        losses = {"base": self.base, "stored": self.stored, "dense": self.dense}
        return {name: None if loss is None else exp(loss) for name, loss in losses.items()}

    def to_json(self) -> dict[str, Any]:
        """As a plain dictionary."""
        return {**asdict(self), "perplexity": self.perplexity}


def evaluate_task(
    store: Store,
    name: str,
    *,
    data: str | os.PathLike[str],
    dense: str | os.PathLike[str] | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Evaluate a task as it is stored.

    Args:
        store: Where the task is.
        name: The task.
        data: JSON lines of texts and labels (texts alone for a language model).
        dense: Directory of the dense fine-tune to compare with.
        device: Where to run.

    Raises:
        CalibrationError: The data cannot be used.
        BadOptionError: The task gives vectors and there is no dense fine-tune to compare them with.
        UnsupportedTaskError: The task cannot be run here.
    """
    rows = read_rows(data)
    live = LiveBase.load(store, device=device, dtype=DTYPES[store.task(name).dtype])
    grown = any(change.rows is not None for change in store.changes(name))
    prepared = live.prepare(name, copy=grown)
    examples = Examples.of(rows, prepared.shell, prepared.tokenizer, where=str(data))
    if prepared.kind == "classify" and examples.labels is None:
        raise CalibrationError(f"{data}: accuracy needs a label on every line")
    if prepared.kind == "embed" and dense is None:
        raise BadOptionError(f"task {name!r} gives vectors; name the fine-tune with --dense")
    runner = Runner(prepared.shell, prepared.tokenizer, examples)
    has_gain = prepared.kind != "embed" and not prepared.own_body
    base = runner() if has_gain else None
    live.switch_(prepared)
    other = (
        None
        if dense is None
        else _dense_runner(open_fine_tune(dense, store.base), rows, device, str(data))
    )
    if prepared.kind == "embed" and other is not None:
        return _of_vectors(runner, other, examples)
    return _of_losses(prepared.kind, runner, other, base, examples)


def _of_vectors(runner: Runner, dense: Runner, examples: Examples) -> Evaluation:
    cosine = torch.nn.functional.cosine_similarity(runner.outputs(), dense.outputs())
    value = float(cosine.mean())
    return Evaluation(
        metric="cosine to dense",
        stored=value,
        dense=1.0,
        ratio=value,
        n_examples=len(examples),
        n_truncated=examples.n_truncated,
    )


def _of_losses(
    kind: Kind, runner: Runner, other: Runner | None, base: Losses | None, examples: Examples
) -> Evaluation:
    """Of a classifier or a language model: base, stored task and dense fine-tune in one metric."""
    stored, dense = runner(), None if other is None else other()
    ratio = agreement = kept = None
    if other is not None and kind == "classify":
        same = runner.outputs().argmax(-1) == other.outputs().argmax(-1)
        agreement = float(same.double().mean())
    if dense is not None and base is not None:
        kept = gain_kept(stored, dense=dense, base=base, measure="loss")
    of = _loss if kind == "generate" else _accuracy
    if dense is not None and kind == "classify":
        ratio = of(stored) / of(dense) if of(dense) else None
    return Evaluation(
        metric="loss" if kind == "generate" else "accuracy",
        stored=of(stored),
        base=None if base is None else of(base),
        dense=None if dense is None else of(dense),
        ratio=ratio,
        gain_kept=kept,
        agreement=agreement,
        n_examples=len(examples),
        n_truncated=examples.n_truncated,
    )


def _loss(losses: Losses) -> float:
    return float(losses.of("loss").mean())


def _accuracy(losses: Losses) -> float:
    return float((1 - losses.of("accuracy")).mean())


def _dense_runner(checkpoint: FineTuneSource, rows: list[Row], device: str, where: str) -> Runner:
    """The dense fine-tune on the same rows, with its own head, labels and tokenizer."""
    body = Body(checkpoint, device=device)
    files = checkpoint.files()
    pooling = Pooling.of_directory(files)
    shell = Shell(Ties.of(checkpoint).config, body, pooling=pooling)
    own = [name for name in checkpoint.names if name in shell.head]
    shell.load_head_({name: checkpoint.tensor(name) for name in own})
    named = [files[name].parent for name in TOKENIZER_NAMES if name in files]
    tokenizer = load_tokenizer(named[0] if named else checkpoint.path)
    return Runner(shell, tokenizer, Examples.of(rows, shell, tokenizer, where=where))
