"""Causal language models go through the same problem: every next token is a row."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks.methods import METHODS
from benchmarks.quality.tasks import FineTune, Loaded, load
from tests.tiny import WORDS, save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [" ".join(WORDS[i % 7 :: 1 + i % 3]) for i in range(40)]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A random decoder in bf16, and a fine-tune of it that has learned the texts."""
    root: Path = tmp_path_factory.mktemp("lm")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(root / "base")
    save_tokenizer(root / "base")
    tokenizer = AutoTokenizer.from_pretrained(root / "base")
    model = model.float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    for _ in range(30):
        optimizer.zero_grad()
        model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels
        ).loss.backward()
        optimizer.step()
    model.to(torch.bfloat16).save_pretrained(root / "c-light")
    save_tokenizer(root / "c-light")
    (root / "data").mkdir()
    for split, rows in (("calibration", TEXTS[:20]), ("test", TEXTS[20:])):
        lines = [json.dumps({"text": text}) + "\n" for text in rows]
        (root / "data" / f"c-light.{split}.jsonl").write_text("".join(lines))
    task = FineTune("lm-light", "c-light", root / "base", root)
    return load(task, [task], "cpu")


def test_the_loss_is_the_models_own(lm: Loaded) -> None:
    forward, batches = lm.problem.forward, lm.problem.calibration.batches
    (batch,) = batches
    logits = forward.logits(lm.problem.dense, batch)
    ours = torch.nn.functional.cross_entropy(logits, batch.labels)
    mask = batch.inputs["attention_mask"] == 0
    labels = batch.inputs["input_ids"].masked_fill(mask, -100)
    with torch.inference_mode():
        theirs = LlamaForCausalLM.from_pretrained(lm.problem.source.fine_tune, dtype="auto")(
            **batch.inputs, labels=labels
        ).loss
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-3, atol=1e-3)


def test_all_of_an_untied_decoder_is_body(lm: Loaded) -> None:
    kinds = {span.name: span.kind for span in lm.problem.layout.spans}
    assert kinds["lm_head.weight"] == "linear"
    assert kinds["model.embed_tokens.weight"] == "embedding"
    assert not lm.problem.forward.head
    assert set(lm.problem.receiver.dtypes.values()) == {"BF16"}


@pytest.mark.parametrize("name", ["trim + scale", "BitDelta", "DeltaZip 2:4", "EMR", "Delta-CoMe"])
def test_methods_keep_most_of_the_gain(name: str, lm: Loaded) -> None:
    method = METHODS[name]
    compressed = method.compress(lm.problem, method.settings[-1])
    assert lm.held_out.scores(compressed.delta)["gain_kept"] > 0.6


def test_lossless_restores_every_bit(lm: Loaded) -> None:
    compressed = METHODS["lossless xor + zstd"].compress(lm.problem, {})
    assert torch.equal(lm.problem.receiver.base + compressed.delta, lm.problem.dense)
