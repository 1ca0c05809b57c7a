"""The shipped store on the real base: what the README says of it, and that it can be relied on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import debian, documents, minilm
from examples.demo import SHIPPED
from formats.writer import verify
from nps_store import LiveBase, Store, export_task
from nps_store.evaluate import evaluate_task

if TYPE_CHECKING:
    from pathlib import Path

BUDGET_NBYTES = 90_000
RESULT = json.loads((documents.RESULTS / "shipped.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def store():
    with Store.open(SHIPPED, base=minilm.base_dir()) as opened:
        yield opened


@pytest.fixture(scope="module")
def live(store: Store) -> LiveBase:
    return LiveBase.load(store)


def test_nothing_is_damaged() -> None:
    assert verify(SHIPPED, "decode") == []


def test_the_result_file_is_about_this_file(store: Store) -> None:
    assert RESULT["store_nbytes"] == SHIPPED.stat().st_size
    measured = {row["task"]: (row["nbytes"], row["source_hash"]) for row in RESULT["tasks"]}
    tasks = [store.task(name) for name in store.tasks]
    assert measured == {task.name: (task.nbytes, task.meta["source"]["hash"]) for task in tasks}


def test_eight_tasks_within_their_budget_and_quality(store: Store) -> None:
    assert set(store.tasks) == set(debian.TASKS)
    assert max(store.task(name).nbytes for name in store.tasks) <= BUDGET_NBYTES
    assert RESULT["mean_ratio"] >= 0.99


def test_measured_accuracy_is_what_the_result_file_says(store: Store, tmp_path: Path) -> None:
    data = debian.write_jsonl(tmp_path / "test.jsonl", "interface", "test")
    row = next(row for row in RESULT["tasks"] if row["task"] == "interface")
    found = evaluate_task(store, "interface", data=data)
    assert found.n_examples == row["n_examples"]
    assert found.stored == pytest.approx(row["stored"], abs=1 / row["n_examples"])


def test_served_exported_and_materialized_weights_are_bit_identical(
    store: Store, live: LiveBase, tmp_path: Path
) -> None:
    export_task(store, "role", tmp_path / "role")
    exported = load_file(tmp_path / "role" / "model.safetensors")
    materialized = store.materialize("role")
    prepared = live.prepare("role")
    live.switch_(prepared)
    assert exported.keys() == materialized.keys()
    for name, tensor in materialized.items():
        served = prepared.shell.head.get(name)
        if served is None:
            served = prepared.shell.body_tensor(name)
        assert torch.equal(exported[name].view(torch.int32), tensor.view(torch.int32)), name
        assert torch.equal(served.view(torch.int32), tensor.view(torch.int32)), name


def test_exported_directory_predicts_like_the_served_task(
    store: Store, live: LiveBase, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    export_task(store, "use", tmp_path / "use")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "use").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "use")
    texts = [row["text"] for row in debian.rows("use", "test")[:40]]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**batch).logits.softmax(-1)
    prepared = live.prepare("use")
    live.switch_(prepared)
    one_by_one = torch.cat([live.run(prepared, prepared.encode([text])) for text in texts])
    torch.testing.assert_close(one_by_one, expected, rtol=0, atol=1e-5)
    assert prepared.labels == [model.config.id2label[i] for i in range(model.config.num_labels)]


def test_switching_among_all_tasks_leaves_the_base_as_it_was(store: Store, live: LiveBase) -> None:
    prepared = {name: live.prepare(name) for name in store.tasks}
    text = "GNU Standard C++ Library v3"
    first = {}
    for name in [*store.tasks, *reversed(store.tasks), *store.tasks]:
        live.switch_(prepared[name])
        answer = live.run(prepared[name], prepared[name].encode([text]))
        assert torch.equal(first.setdefault(name, answer), answer)
    assert live.verify()
