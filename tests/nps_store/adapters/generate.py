"""Writes adapters of tiny bases with peft itself, and what it makes of them: the tests' oracle.

    pip install peft==0.21.2
    python -m tests.nps_store.adapters.generate

peft is needed for nothing else, so it is no dependency.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import IA3Config, LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
)

if TYPE_CHECKING:
    from peft import PeftConfig

FOLDER = Path(__file__).parent / "data"
BERT = BertConfig(
    vocab_size=12,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=8,
)
GPT2 = GPT2Config(vocab_size=12, n_embd=8, n_layer=1, n_head=2, n_positions=8)
CLASSIFY, GENERATE = TaskType.SEQ_CLS, TaskType.CAUSAL_LM
CASES: dict[str, tuple[str, type, PeftConfig]] = {
    "lora": ("bert", BertForSequenceClassification, LoraConfig(
        task_type=CLASSIFY, r=2, lora_alpha=3, target_modules="all-linear",
    )),
    "rslora": ("bert", BertForSequenceClassification, LoraConfig(
        task_type=CLASSIFY, r=2, lora_alpha=5, use_rslora=True, target_modules=["query", "value"],
        rank_pattern={"layer.0.attention.self.query": 3},
        alpha_pattern={"layer.1.attention.self.value": 7},
    )),
    "body": ("bert", BertModel, LoraConfig(
        r=2, target_modules=["intermediate.dense"], modules_to_save=["pooler"],
    )),
    "ia3": ("bert", BertForSequenceClassification, IA3Config(
        task_type=CLASSIFY, target_modules=["key", "value", "output.dense"],
        feedforward_modules=["output.dense"],
    )),
    "gpt2-lora": ("gpt2", GPT2LMHeadModel, LoraConfig(
        task_type=GENERATE, r=2, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True,
    )),
    "gpt2-ia3": ("gpt2", GPT2LMHeadModel, IA3Config(
        task_type=GENERATE, target_modules=["c_attn", "c_proj"], feedforward_modules=["c_proj"],
        fan_in_fan_out=True,
    )),
}  # fmt: skip


def main() -> None:
    """Write the folder anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    torch.manual_seed(0)
    BertModel(BERT).save_pretrained(FOLDER / "bert")
    GPT2LMHeadModel(GPT2).save_pretrained(FOLDER / "gpt2")
    for name, (base, model_class, config) in CASES.items():
        options = {"num_labels": 3} if config.task_type == CLASSIFY else {}
        model = get_peft_model(model_class.from_pretrained(FOLDER / base, **options), config)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data + 0.1 * torch.randn_like(parameter)
        model.save_pretrained(FOLDER / name)
        (FOLDER / name / "README.md").unlink()
        settings = FOLDER / name / "adapter_config.json"
        settings.write_text(settings.read_text().replace(f"{FOLDER}/", ""))
        fresh = model_class.from_pretrained(FOLDER / base, **options)
        merged = PeftModel.from_pretrained(fresh, FOLDER / name).merge_and_unload().state_dict()
        tensors = {key: tensor.contiguous() for key, tensor in merged.items()}
        tensors.pop("lm_head.weight", None)  # is the embedding
        save_file(tensors, FOLDER / f"{name}.merged.safetensors")


if __name__ == "__main__":
    main()
