"""A tiny base and real, briefly trained fine-tunes of it, as ordinary Hugging Face directories.

The task of every fine-tune: which keyword does the text contain? The body is trained too, so that
selection, search and quality have something to keep.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
)

from nps_store.compress import TaskSource
from tests.tiny import WORDS, make_base, save_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

STEPS = 100
LABELS = {"two": ("a", "tool"), "three": ("game", "image", "server"), "five": WORDS[:5]}


@dataclass(frozen=True)
class Zoo:
    """Where everything lies."""

    root: Path

    @property
    def base(self) -> Path:
        return self.root / "base"

    def dense(self, name: str) -> Path:
        return self.root / name

    def data(self, name: str) -> Path:
        return self.root / f"{name}.jsonl"

    def source(self, name: str, *, calibrated: bool = True) -> TaskSource:
        return TaskSource(name, self.dense(name), self.data(name) if calibrated else None)


def make_zoo(root: Path) -> Zoo:
    """The base and the fine-tunes named in LABELS."""
    zoo = Zoo(root)
    make_base(zoo.base)
    for seed, (name, labels) in enumerate(LABELS.items(), 1):
        fine_tune(zoo.dense(name), zoo.base, labels, seed=seed)
        write_rows(zoo.data(name), corpus(labels, 96, seed=100 + seed))
    return zoo


def fine_tune(
    directory: Path, base: Path, labels: Sequence[str], *, seed: int = 1, steps: int = STEPS
) -> Path:
    """Train body and head; writes an ordinary model directory."""
    torch.manual_seed(seed)
    names = dict(enumerate(labels))
    config = BertConfig.from_pretrained(
        base, num_labels=len(names), id2label=names, label2id={v: k for k, v in names.items()}
    )
    model = BertForSequenceClassification(config)
    model.bert.load_state_dict(BertModel.from_pretrained(base).state_dict())
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = corpus(labels, 32 * steps, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for start in range(0, len(rows), 32):
        texts, wanted = zip(*rows[start : start + 32], strict=True)
        batch = tokenizer(list(texts), padding=True, return_tensors="pt")
        target = torch.tensor([labels.index(label) for label in wanted])
        loss = torch.nn.functional.cross_entropy(model(**batch).logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(directory)
    save_tokenizer(directory)
    return directory


def corpus(labels: Sequence[str], n: int, *, seed: int) -> list[tuple[str, str]]:
    """Texts of two to five filler words around the keyword, which is the label."""
    rng = np.random.default_rng(seed)
    filler = [word for word in WORDS if word not in labels]
    rows = []
    for _ in range(n):
        label = labels[rng.integers(len(labels))]
        words = rng.choice(filler, rng.integers(2, 6)).tolist()
        words.insert(rng.integers(len(words) + 1), label)
        rows.append((" ".join(words), label))
    return rows


def write_rows(path: Path, rows: Sequence[tuple[str, str | None]]) -> Path:
    lines = [{"text": text} | ({} if label is None else {"label": label}) for text, label in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def edit(source: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """A copy of a model directory with other weights."""
    shutil.copytree(source, target)
    path = target / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata={"format": "pt"})
    return target


def cast(source: Path, target: Path, dtype: torch.dtype) -> Path:
    """A copy of a model directory in another dtype."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                tensors[name] = tensor.to(dtype)

    edit(source, target, change)
    config = json.loads((target / "config.json").read_text())
    config["dtype"] = str(dtype).removeprefix("torch.")
    (target / "config.json").write_text(json.dumps(config))
    return target


def grow(source: Path, target: Path, n_rows: int, *, seed: int = 5) -> Path:
    """A copy of a model directory with rows appended to its vocabulary."""
    name = "bert.embeddings.word_embeddings.weight"

    def change(tensors: dict[str, torch.Tensor]) -> None:
        torch.manual_seed(seed)
        rows = torch.randn(n_rows, tensors[name].shape[1])
        tensors[name] = torch.cat([tensors[name], rows])

    edit(source, target, change)
    config = json.loads((target / "config.json").read_text())
    config["vocab_size"] += n_rows
    (target / "config.json").write_text(json.dumps(config))
    words = [f"new{index}" for index in range(n_rows)]
    tokenizer = AutoTokenizer.from_pretrained(target)
    tokenizer.add_tokens(words)
    tokenizer.save_pretrained(target)
    return target


def shard(source: Path, target: Path, n_shards: int = 3) -> Path:
    """A copy of a model directory in several safetensors files."""
    shutil.copytree(source, target)
    tensors = load_file(target / "model.safetensors")
    (target / "model.safetensors").unlink()
    weight_map = {}
    for number in range(n_shards):
        name = f"model-{number + 1:05d}-of-{n_shards:05d}.safetensors"
        part = {key: tensors[key] for key in sorted(tensors)[number::n_shards]}
        save_file(part, target / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, name))
    index = {"metadata": {}, "weight_map": weight_map}
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    return target


def weights(directory: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model directory."""
    tensors = {}
    for path in sorted(directory.glob("*.safetensors")):
        tensors.update(load_file(path))
    return tensors


def probabilities(directory: Path, texts: Sequence[str]) -> torch.Tensor:
    """Answers of the dense model alone, one text at a time, [n, n_labels]."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    rows = []
    with torch.inference_mode():
        for text in texts:
            batch = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
            rows.append(model(**batch).logits[0].float().softmax(-1))
    return torch.stack(rows)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Bit-identical, names and dtypes included."""
    if left.keys() != right.keys():
        return False
    return all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and bool(
            (
                left[name].reshape(-1).view(torch.uint8)
                == right[name].reshape(-1).view(torch.uint8)
            ).all()
        )
        for name in left
    )
