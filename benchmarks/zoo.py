"""Fine-tune every weight of the base on each Debian task, into ordinary Hugging Face directories.

    python -m benchmarks.zoo --out zoo --device cuda

Each task directory loads with `AutoModelForSequenceClassification.from_pretrained`; a JSON beside
it holds the settings and the test accuracy. Finished tasks are skipped on a second run.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import transformers
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from benchmarks import debian, minilm

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)


@dataclass(frozen=True)
class Recipe:
    """How one fine-tune is trained; AdamW with a one-cycle schedule."""

    epochs: float = 4
    batch_size: int = 64
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    max_length: int = 32
    seed: int = 1


def fine_tune(
    base: Path,
    out: Path,
    train: list[dict[str, str]],
    *,
    recipe: Recipe,
    device: str = "cpu",
    progress: Progress | None = None,
    name: str = "task",
) -> PreTrainedModel:
    """Fine-tune all weights of `base` with a new head on `train` and save the result in `out`.

    The directory appears only once it is complete. The tokenizer files are the base's own,
    byte for byte, since fine-tuning does not change them.
    """
    torch.manual_seed(recipe.seed)
    labels = sorted({row["label"] for row in train})
    ids = {label: index for index, label in enumerate(labels)}
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForSequenceClassification.from_pretrained(
        base,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id=ids,
    ).to(device)
    steps_per_epoch = -(-len(train) // recipe.batch_size)
    steps = max(2, round(steps_per_epoch * recipe.epochs))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.learning_rate, total_steps=steps
    )
    bar = progress.add_task(name, total=steps) if progress else None
    model.train()
    for step, rows in zip(range(steps), _batches(train, recipe), strict=False):
        target = torch.tensor([ids[row["label"]] for row in rows], device=device)
        logits = model(**encode(tokenizer, rows, recipe.max_length, device)).logits
        loss = torch.nn.functional.cross_entropy(logits, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step + 1 < steps:
            schedule.step()
        if progress and bar is not None:
            progress.update(bar, advance=1, description=f"{name} loss {loss.item():.3f}")
    _save(model.eval(), base, out)
    return model


def encode(
    tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, str]], max_length: int, device: str
) -> dict[str, Tensor]:
    """Token ids of the texts, padded to the longest of them."""
    texts = [row["text"] for row in rows]
    batch = tokenizer(
        texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt"
    )
    return {key: value.to(device) for key, value in batch.items()}


def quiet() -> None:
    """Keep transformers from reporting the new head of every model on its way in and out."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def progress_bar() -> Progress:
    """A bar with the time left, on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """The base's tokenizer, which every fine-tune here shares."""
    return AutoTokenizer.from_pretrained(base)


@torch.inference_mode()
def accuracy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict[str, str]],
    max_length: int,
) -> float:
    """Share of rows whose most likely label is the given one."""
    correct = 0
    for start in range(0, len(rows), 256):
        chunk = rows[start : start + 256]
        best = model(**encode(tokenizer, chunk, max_length, str(model.device))).logits.argmax(-1)
        correct += sum(
            model.config.id2label[index] == row["label"]
            for index, row in zip(best.tolist(), chunk, strict=True)
        )
    return correct / len(rows)


def _batches(train: list[dict[str, str]], recipe: Recipe) -> Iterator[list[dict[str, str]]]:
    generator = torch.Generator().manual_seed(recipe.seed)
    while True:
        order = torch.randperm(len(train), generator=generator).tolist()
        for start in range(0, len(order), recipe.batch_size):
            yield [train[index] for index in order[start : start + recipe.batch_size]]


def _save(model: PreTrainedModel, base: Path, out: Path) -> None:
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, partial / name)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def _train_task(
    task: str, base: Path, out: Path, recipe: Recipe, device: str, progress: Progress
) -> dict[str, Any]:
    card_path = out / f"{task}.json"
    if card_path.is_file():
        card: dict[str, Any] = json.loads(card_path.read_text())
        if card["recipe"] == asdict(recipe):
            return card
    model = fine_tune(
        base, out / task, debian.rows(task, "train"),
        recipe=recipe, device=device, progress=progress, name=task,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(base)
    score = accuracy(model, tokenizer, debian.rows(task, "test"), recipe.max_length)
    card = {"task": task, "recipe": asdict(recipe), "device": device, "test_accuracy": score}
    card_path.write_text(json.dumps(card, indent=1) + "\n")
    return card


def main(
    out: Annotated[Path, typer.Option(help="Folder for the fine-tunes.")] = Path("zoo"),
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    epochs: Annotated[float, typer.Option(help="Passes over the training data.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of head, order and dropout.")] = 1,
) -> None:
    """Train the zoo of 8 classification fine-tunes."""
    quiet()
    base = minilm.base_dir()
    recipe = Recipe(epochs=epochs, seed=seed)
    table = Table("task", "test accuracy")
    with progress_bar() as progress:
        for name in task or debian.TASKS:
            for split in ("calibration", "test"):
                debian.write_jsonl(out / "data" / f"{name}.{split}.jsonl", name, split)
            card = _train_task(name, base, out, recipe, device, progress)
            table.add_row(name, f"{card['test_accuracy']:.4f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
