"""The metric of a stored task, beside that of its dense fine-tune."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from nps_store.calibration import Examples, Outputs, Row, Runner, accuracy, read_rows
from nps_store.checkpoint import DTYPES, Checkpoint
from nps_store.errors import BadOptionError, CalibrationError
from nps_store.modeling import Body, LiveBase, Shell
from nps_store.modeling.shell import Pooling, load_tokenizer

if TYPE_CHECKING:
    import os

    from nps_store.store import Store


@dataclass(frozen=True)
class Evaluation:
    """A metric of the stored task.

    Attributes:
        metric: "accuracy", or "cosine to dense" for vectors.
        stored: Of the stored task.
        dense: Of the dense fine-tune, or None.
        ratio: stored / dense, or None.
        agreement: Share of examples with the same predicted class, or None.
        n_examples: Examples evaluated on.
        n_truncated: Texts that were cut to the model's limit.
    """

    metric: str
    stored: float
    dense: float | None
    ratio: float | None
    agreement: float | None
    n_examples: int
    n_truncated: int

    def to_json(self) -> dict[str, Any]:
        """As a plain dictionary."""
        return asdict(self)


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
        data: JSON lines of texts and labels.
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
    live.switch_(prepared)
    stored = Runner(prepared.shell, prepared.tokenizer, examples)()
    reference = (
        None if dense is None else _dense_outputs(Checkpoint(dense), rows, device, str(data))
    )
    if prepared.kind == "embed":
        if reference is None:
            raise BadOptionError(f"task {name!r} gives vectors; name the fine-tune with --dense")
        cosine = torch.nn.functional.cosine_similarity(stored.values, reference.values)
        value = float(cosine.mean())
        return Evaluation("cosine to dense", value, 1.0, value, None, len(rows),
                          examples.n_truncated)  # fmt: skip
    if stored.labels is None:
        raise CalibrationError(f"{data}: accuracy needs a label on every line")
    value = accuracy(stored)
    dense_value = ratio = agreement = None
    if reference is not None:
        dense_value = accuracy(reference)
        ratio = value / dense_value if dense_value else None
        same = stored.values.argmax(-1) == reference.values.argmax(-1)
        agreement = float(same.double().mean())
    return Evaluation("accuracy", value, dense_value, ratio, agreement, len(rows),
                      examples.n_truncated)  # fmt: skip


def _dense_outputs(checkpoint: Checkpoint, rows: list[Row], device: str, where: str) -> Outputs:
    """The dense fine-tune on the same rows, with its own head, labels and tokenizer."""
    files = checkpoint.files()
    body = Body(checkpoint, device=device)
    shell = Shell(
        checkpoint.config,
        body,
        pooling=Pooling.from_files(lambda n: files[n].read_bytes() if n in files else None),
    )
    own = [name for name in checkpoint.names if name in shell.head]
    shell.load_head_({name: checkpoint.tensor(name) for name in own})
    tokenizer = load_tokenizer(checkpoint.path)
    return Runner(shell, tokenizer, Examples.of(rows, shell, tokenizer, where=where))()
