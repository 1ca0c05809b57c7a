"""Tiny trained language models that vLLM can run, fine-tunes of them, and a store of those."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from nps_store.checkpoint import Checkpoint
from nps_store.compress import Options, TaskSource, add, compress
from nps_store.export import export_task
from nps_store.store import Store
from tests.nps_store.adapters.written import write
from tests.nps_store.language import SIZE, save, texts, train
from tests.nps_store.models import cast

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

CONTEXT = 1024
TASKS = {"second": 2, "fifth": 5, "lossless": 8}
"""Which of the following words mostly follows a word, by task; after the base it is the first."""

ADAPTER = "adapter"
"""A task that is an adapter of the base, as peft writes it."""
_MODULES = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
            "mlp.down_proj")  # fmt: skip

KINDS = ("llama", "qwen2", "phi3")
"""Untied; tied, with biases; and with a checkpoint whose projections are fused already."""

_SIZE = SIZE | {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": CONTEXT,
}


@dataclass(frozen=True)
class Zoo:
    """A base, its tasks in a store, and their exports."""

    root: Path
    kind: str

    @property
    def base(self) -> Path:
        return self.root / "base"

    @property
    def store(self) -> Path:
        return self.root / "tasks.nps"

    def tuned(self, name: str) -> Path:
        return self.root / "tuned" / name

    def dense(self, name: str | None) -> Path:
        """What stock vLLM loads."""
        return self.base if name is None else self.root / "exported" / name


def make_zoo(root: Path, kind: str) -> Zoo:
    zoo = Zoo(root, kind)
    torch.manual_seed(0)
    base = _untrained(kind)
    train(base, texts(640, shift=1, seed=1))
    save(base, zoo.base)
    for seed, (name, shift) in enumerate(TASKS.items(), 2):
        model = AutoModelForCausalLM.from_pretrained(zoo.base)
        train(model, texts(640, shift=shift, seed=seed))
        save(model, zoo.tuned(name))
    _write_adapter(zoo)
    _fill(zoo)
    return zoo


def cast_zoo(zoo: Zoo, root: Path, dtype: torch.dtype) -> Zoo:
    """The same models in another dtype, in a store of their own."""
    made = Zoo(root, zoo.kind)
    cast(zoo.base, made.base, dtype)
    for name in TASKS:
        cast(zoo.tuned(name), made.tuned(name), dtype)
    shutil.copytree(zoo.tuned(ADAPTER), made.tuned(ADAPTER))
    _fill(made)
    return made


def _write_adapter(zoo: Zoo) -> None:
    """Low-rank changes of those modules of the first layer that the base has."""
    tensors = {}
    base = Checkpoint(zoo.base)
    for module in (f"model.layers.0.{name}" for name in _MODULES):
        if f"{module}.weight" in base.names:
            rows, columns = base.shape(f"{module}.weight")
            tensors[f"{module}.lora_A.weight"] = torch.randn(4, columns) * 0.4
            tensors[f"{module}.lora_B.weight"] = torch.randn(rows, 4) * 0.4
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8}
    write(zoo.tuned(ADAPTER), settings, tensors)


def _fill(zoo: Zoo) -> None:
    """Compress the fine-tunes, and export them again."""
    sources = {name: TaskSource(name, zoo.tuned(name)) for name in TASKS}
    exact = [sources.pop("lossless"), TaskSource(ADAPTER, zoo.tuned(ADAPTER))]
    compress(zoo.base, list(sources.values()), zoo.store, options=Options("dither", keep=0.3))
    add(zoo.store, exact, options=Options("exact"))
    with Store.open(zoo.store) as store:
        for name in (*TASKS, ADAPTER):
            export_task(store, name, zoo.dense(name))


def _untrained(kind: str) -> PreTrainedModel:
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**_SIZE, tie_word_embeddings=False))
    if kind == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**_SIZE, tie_word_embeddings=True))
    return Phi3ForCausalLM(Phi3Config(**_SIZE, tie_word_embeddings=False))
