"""A tiny random BERT, fine-tunes of it and a real store of them, made in some hundred milliseconds.

Every task changes a few positions of every body tensor, brings its own head and its own tokenizer,
and lies beside the store as an ordinary dense model directory: the reference of every answer.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizerFast,
)

from formats.records import DenseBits, SparseLevels
from formats.writer import ContainerWriter
from nps_store.checkpoint import Checkpoint
from nps_store.identity import describe
from nps_store.records import to_bits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WORDS = ("a", "tool", "library", "game", "server", "for", "the", "of", "small", "network", "image")
PREFIX = "bert."


@dataclass(frozen=True)
class Spec:
    """What makes a task.

    Attributes:
        labels: Its classes; none makes it a bare body, which embeds.
        lower_case: Whether its tokenizer folds case (the base's does).
    """

    labels: tuple[str, ...]
    seed: int
    lower_case: bool = True


def save_tokenizer(directory: Path, *, lower_case: bool = True) -> None:
    vocabulary = directory / "vocab.txt"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    vocabulary.write_text("\n".join(tokens) + "\n")
    tokenizer = BertTokenizerFast(
        vocab=str(vocabulary), do_lower_case=lower_case, model_max_length=32
    )
    tokenizer.save_pretrained(directory)


def make_base(directory: Path) -> Path:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(directory)
    save_tokenizer(directory)
    return directory


def make_task(directory: Path, base: Path, spec: Spec) -> dict[str, SparseLevels]:
    """Write the dense fine-tune; returns the changes of the base's tensors, by their names."""
    rng = np.random.default_rng(spec.seed)
    torch.manual_seed(spec.seed)
    body = BertModel.from_pretrained(base)
    changes = {}
    with torch.no_grad():
        for name, tensor in body.state_dict().items():
            flat = tensor.view(-1)
            positions = np.sort(rng.choice(flat.numel(), max(2, flat.numel() // 8), replace=False))
            levels = rng.choice(np.array([-1, 1], np.int8), len(positions))
            scale = np.array([0.2], np.float32)
            flat[positions] += torch.from_numpy(levels * scale[0])
            changes[name] = SparseLevels(flat.numel(), positions.astype(np.int64), levels, scale)
    if spec.labels:
        names = dict(enumerate(spec.labels))
        config = BertConfig.from_pretrained(
            base, num_labels=len(names), id2label=names, label2id={v: k for k, v in names.items()}
        )
        model = BertForSequenceClassification(config)
        model.bert.load_state_dict(body.state_dict())
        model.classifier.weight.data.normal_(0, 0.2)
        model.save_pretrained(directory)
    else:
        body.save_pretrained(directory)
    save_tokenizer(directory, lower_case=spec.lower_case)
    return changes


@dataclass(frozen=True)
class TinyStore:
    """A store, its base and the dense directory of every task."""

    directory: Path

    @property
    def path(self) -> Path:
        return self.directory / "tasks.nps"

    @property
    def base(self) -> Path:
        return self.directory / "base"

    def dense(self, name: str) -> Path:
        return self.directory / "dense" / name

    @classmethod
    def create(cls, directory: Path, specs: dict[str, Spec]) -> TinyStore:
        store = cls(directory)
        source = Checkpoint(make_base(store.base))
        with ContainerWriter.create(store.path) as writer:
            writer.set_base(
                storage="external",
                tensors=describe(source),
                path_hint=str(store.base),
                meta={"name": "tiny-bert"},
            )
            for name, spec in specs.items():
                store._write(writer, name, spec)
            writer.commit()
        return store

    def put(self, name: str, spec: Spec) -> None:
        """Add or replace a task."""
        with ContainerWriter.open(self.path) as writer:
            if name in writer.tasks:
                writer.remove_task(name)
            self._write(writer, name, spec)
            writer.commit()

    def remove(self, name: str) -> None:
        with ContainerWriter.open(self.path) as writer:
            writer.remove_task(name)
            writer.commit()

    def damage(self, name: str) -> None:
        """Flip a byte of the task's first section."""
        from formats.container import Container

        with Container.open(self.path) as container:
            offset = container.root.tasks[name].first_offset
        with self.path.open("r+b") as file:
            file.seek(offset + 5)
            byte = file.read(1)
            file.seek(offset + 5)
            file.write(bytes([byte[0] ^ 0x10]))

    def _write(self, writer: ContainerWriter, name: str, spec: Spec) -> None:
        directory = self.dense(name)
        if directory.exists():
            shutil.rmtree(directory)
        changes = make_task(directory, self.base, spec)
        checkpoint = Checkpoint(directory)
        prefix = PREFIX if spec.labels else ""
        order = {tensor.name: index for index, tensor in enumerate(writer.base.tensors)}
        with writer.begin_task(name, prefix=prefix) as task:
            for tensor in checkpoint.names:
                base_name = tensor.removeprefix(prefix)
                values = checkpoint.tensor(tensor)
                index = order.get(base_name)
                record = (
                    DenseBits(values.numel(), to_bits(values), "F32")
                    if index is None
                    else changes[base_name]
                )
                task.add(tensor, dtype="F32", shape=values.shape, base=index, record=record)
            files = {n: writer.add_file(p.read_bytes()) for n, p in checkpoint.files().items()}
            task.finish(files=files, meta={"method": {"name": "dither"}})

    def expected(self, name: str | None, texts: Sequence[str]) -> np.ndarray:
        """Answers of the dense model alone, one text at a time."""
        directory = self.base if name is None else self.dense(name)
        tokenizer = AutoTokenizer.from_pretrained(directory)
        classifies = name is not None and "classifier.weight" in Checkpoint(directory).names
        kind = AutoModelForSequenceClassification if classifies else BertModel
        model = kind.from_pretrained(directory).eval()
        rows = []
        with torch.inference_mode():
            for text in texts:
                batch = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
                output = model(**batch)
                if classifies:
                    rows.append(output.logits[0].softmax(-1))
                else:
                    rows.append(output.last_hidden_state[0].mean(0))
        return torch.stack(rows).numpy()
