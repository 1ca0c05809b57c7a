"""The whole service on real weights: a tiny BERT, its fine-tunes in a real store, their dense
checkpoints as the reference."""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nps_store.compress import Options, compress
from nps_store.errors import BaseMismatchError, BaseNotFoundError, UnsupportedTaskError
from nps_store.modeling import PreparedTask
from server.engines.torch import TorchEngine
from server.errors import EngineFailedError
from tests.nps_store.language import make_language
from tests.server.conftest import assert_error, metric, serving, wait_until
from tests.tiny import WORDS, Spec, TinyStore, make_base

if TYPE_CHECKING:
    from collections.abc import Iterator

SPECS = {
    "section": Spec(("admin", "games", "sound"), seed=1),
    "role": Spec(("app", "library"), seed=2, lower_case=False),
    "interface": Spec(("x11", "text", "web", "none", "daemon"), seed=3),
    "plain": Spec((), seed=4),
}
TEXTS = [" ".join(np.random.default_rng(i).choice(WORDS, 1 + i % 9)) for i in range(12)]
COPIES = 50_000_000


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> TinyStore:
    """For tests that only read."""
    return TinyStore.create(tmp_path_factory.mktemp("shared"), SPECS)


@pytest.fixture
def store(tmp_path) -> TinyStore:
    """For tests that change it."""
    return TinyStore.create(tmp_path, {name: SPECS[name] for name in ("section", "role")})


@pytest.fixture(scope="module")
def expected(shared) -> dict[str | None, np.ndarray]:
    """Answers of every dense model, each text alone."""
    return {name: shared.expected(name, TEXTS) for name in [*SPECS, None]}


def ask(client, name: str | None, texts: list[str]) -> np.ndarray:
    """Answers of one request, checked for everything but the values."""
    labels = SPECS[name].labels if name in SPECS else ()
    route = "/classify" if labels else "/v1/embeddings"
    body = {"input": texts} if name is None else {"model": name, "input": texts}
    response = client.post(route, json=body)
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [item["index"] for item in data] == list(range(len(texts)))
    if not labels:
        return np.array([item["embedding"] for item in data])
    for item in data:
        assert item["num_classes"] == len(labels)
        assert item["label"] == labels[int(np.argmax(item["probs"]))]
    return np.array([item["probs"] for item in data])


def test_tasks_differ_enough_to_be_told_apart(expected):
    """Else the tests below could not fail."""
    for one, other in itertools.combinations(["plain", None], 2):
        assert np.abs(expected[one] - expected[other]).max() > 0.1
    for name in ("section", "role", "interface"):
        assert expected[name].max(1).min() < 0.99
        assert np.ptp(expected[name], axis=0).max() > 0.02


@pytest.mark.parametrize("memory_budget", [None, COPIES])
def test_alternating_tasks_give_their_own_dense_answers(shared, expected, memory_budget):
    with serving(TorchEngine(shared.path), memory_budget=memory_budget) as client:
        for name in ["section", "role"] * 2 + ["plain", None, "interface", "plain", None]:
            np.testing.assert_allclose(ask(client, name, TEXTS), expected[name], atol=1e-5)


@pytest.mark.parametrize("memory_budget", [None, COPIES])
def test_mixed_concurrent_requests_give_their_own_dense_answers(shared, expected, memory_budget):
    rng = np.random.default_rng(0)
    names = [*SPECS, None]
    asked = [
        (names[rng.integers(len(names))], rng.permutation(12)[: rng.integers(1, 7)])
        for _ in range(80)
    ]
    engine = TorchEngine(shared.path)
    with (
        serving(engine, memory_budget=memory_budget, max_batch_inputs=8) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = pool.map(lambda q: ask(client, q[0], [TEXTS[i] for i in q[1]]), asked)
        for (name, chosen), answer in zip(asked, answers, strict=True):
            np.testing.assert_allclose(answer, expected[name][chosen], atol=1e-5)
        assert (metric(client, "nps_swap_seconds_count") == 0) == (memory_budget is not None)
        assert engine.recover_()  # the base is bit-identical after all of that


def test_the_batch_an_input_came_in_does_not_matter(shared, expected):
    with serving(TorchEngine(shared.path)) as client:
        for limit in (1, 5, 12):
            got = np.concatenate(
                [ask(client, "section", TEXTS[i : i + limit]) for i in range(0, 12, limit)]
            )
            np.testing.assert_allclose(got, expected["section"], atol=1e-5)
            assert (got.argmax(1) == expected["section"].argmax(1)).all()


def test_each_task_has_its_own_tokenizer(shared):
    with serving(TorchEngine(shared.path)) as client:
        for name, same in (("section", True), ("role", False)):
            upper, lower = ask(client, name, ["TOOL Library"]), ask(client, name, ["tool library"])
            assert np.allclose(upper, lower, atol=1e-6) == same


def test_token_ids_are_taken_and_checked(shared):
    engine = TorchEngine(shared.path)
    with serving(engine) as client:
        ids = engine.encode(engine.prepare("section"), TEXTS[:2])
        by_ids = ask(client, "section", ids)
        np.testing.assert_allclose(by_ids, ask(client, "section", TEXTS[:2]), atol=1e-6)
        n_rows = 5 + len(WORDS)
        for bad, words in (([n_rows], f"got {n_rows}"), ([-1], "got -1"), ([1] * 33, "at most 32")):
            response = client.post("/classify", json={"model": "section", "input": [ids[0], bad]})
            message = assert_error(response, 400, "server.bad_request", param="input")
            assert message.startswith("input 1: ")
            assert words in message


def test_long_texts_are_truncated_to_what_the_model_takes_or_to_less(shared):
    with serving(TorchEngine(shared.path)) as client:

        def n_tokens(**body) -> int:
            body = {"model": "section", "input": "tool " * 100, **body}
            return client.post("/classify", json=body).json()["usage"]["prompt_tokens"]

        assert n_tokens() == n_tokens(truncate_prompt_tokens=-1) == 32
        assert n_tokens(truncate_prompt_tokens=10) == 10
        assert n_tokens(truncate_prompt_tokens=10, input=["tool", "tool " * 50]) == 13
        body = {"model": "section", "input": "tool library", "truncate_prompt_tokens": 2}
        response = client.post("/classify", json=body)
        assert_error(response, 400, "server.bad_request", param="truncate_prompt_tokens")


def test_the_store_changes_under_the_server(store):
    with serving(TorchEngine(store.path)) as client:

        def states() -> dict[str, str]:
            cards = client.get("/v1/models").json()["data"]
            return {card["id"]: card["nps"]["content_hash"] for card in cards}

        def agrees(name: str, spec: Spec) -> bool:
            body = {"model": name, "input": TEXTS}
            answer = client.post("/classify", json=body).json()["data"]
            assert [len(spec.labels)] * len(TEXTS) == [item["num_classes"] for item in answer]
            probs = np.array([item["probs"] for item in answer])
            return np.allclose(probs, store.expected(name, TEXTS), atol=1e-5)

        assert agrees("section", SPECS["section"])
        before = states()

        store.put("interface", SPECS["interface"])  # added
        wait_until(lambda: "interface" in states())
        assert agrees("interface", SPECS["interface"])

        replacement = Spec(("one", "two", "three", "four"), seed=77)
        store.put("section", replacement)
        wait_until(lambda: states()["section"] != before["section"])
        assert agrees("section", replacement)
        assert states()["role"] == before["role"]

        store.remove("section")
        wait_until(lambda: "section" not in states())
        response = client.post("/classify", json={"model": "section", "input": "a"})
        assert_error(response, 404, "model_not_found", param="model")
        assert agrees("role", SPECS["role"])


def test_a_damaged_task_is_quarantined_and_the_others_go_on(store, expected):
    store.damage("role")
    with serving(TorchEngine(store.path)) as client:
        body = {"model": "role", "input": TEXTS}
        for _ in range(2):
            message = assert_error(
                client.post("/classify", json=body), 500, "server.task_quarantined", param="model"
            )
            assert "'role' is quarantined" in message
        np.testing.assert_allclose(ask(client, "section", TEXTS), expected["section"], atol=1e-5)
        assert metric(client, "nps_checksum_failures_total") == 1
        assert client.get("/v1/models/role").json()["nps"]["state"] == "failed"
        store.put("role", SPECS["role"])  # the same content, written again
        wait_until(lambda: client.post("/classify", json=body).status_code == 200)
        np.testing.assert_allclose(ask(client, "role", TEXTS), expected["role"], atol=1e-5)


def test_tasks_change_places_in_a_small_budget(shared, expected):
    sizes = {}
    with serving(TorchEngine(shared.path), admin_key="k") as client:
        for name in SPECS:
            ask(client, name, TEXTS[:1])
        admin = {"authorization": "Bearer k"}
        for row in client.get("/admin/tasks", headers=admin).json()["data"]:
            sizes[row["task"]] = row["nbytes"]
    budget = max(sizes.values()) + 1
    with serving(TorchEngine(shared.path), memory_budget=budget) as client:
        for name in [*SPECS] * 2:
            np.testing.assert_allclose(ask(client, name, TEXTS), expected[name], atol=1e-5)
        assert 0 < metric(client, "nps_weight_cache_bytes") <= budget
        assert metric(client, "nps_weight_cache_evictions_total") >= 6


def holdings() -> tuple[int, int, int]:
    """Open files, threads and prepared tasks of this process."""
    gc.collect()
    n_prepared = sum(type(thing) is PreparedTask for thing in gc.get_objects())
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), n_prepared


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """What is repeated inside may leave its last round's behind, not one a round."""
    before = holdings()
    yield
    after = holdings()
    assert all(now <= then + 1 for now, then in zip(after, before, strict=True)), (before, after)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_loads_evictions_and_replacements_leave_nothing_behind(store):
    with serving(TorchEngine(store.path), admin_key="k") as client:
        admin = {"authorization": "Bearer k"}

        def cycle(seed: int) -> None:
            store.put("section", Spec(("one", "two"), seed=seed))
            client.post("/admin/refresh", headers=admin)
            for name in ("section", "role", "section"):
                response = client.post("/classify", json={"model": name, "input": "tool"})
                assert response.status_code == 200
            client.post("/admin/tasks/role/evict", headers=admin)

        cycle(100)
        with nothing_left_behind():
            for seed in range(101, 109):
                cycle(seed)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_closing_an_application_leaves_nothing_behind(shared):
    def cycle() -> None:
        with serving(TorchEngine(shared.path)) as client:
            ask(client, "section", TEXTS[:2])

    cycle()
    with nothing_left_behind():
        for _ in range(3):
            cycle()


def test_a_base_that_does_not_fit_is_refused_before_anything_is_served(store, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    make_base(other)
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(other)
    with torch.no_grad():
        model.encoder.layer[1].output.dense.bias[3] += 1
    model.save_pretrained(other)
    with pytest.raises(BaseMismatchError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        TorchEngine(store.path, base=other).open()
    with pytest.raises(BaseNotFoundError):
        TorchEngine(store.path, base=tmp_path / "nowhere").open()
    with pytest.raises(FileNotFoundError):
        TorchEngine(tmp_path / "nothing.nps").open()


def test_a_device_that_is_not_there_is_one_sentence(store):
    with pytest.raises(EngineFailedError, match="device 'nonsense' cannot be used") as refused:
        TorchEngine(store.path, device="nonsense").open()
    assert "\n" not in str(refused.value)


def test_a_language_model_is_refused_by_its_name_and_kind(tmp_path):
    language = make_language(tmp_path, "qwen2")
    path = tmp_path / "s.nps"
    compress(language.base, [language.source], path, options=Options(method="exact"))
    engine = TorchEngine(path)
    with serving(engine) as client:
        for name, called in (("task", "task 'task'"), (None, "the base 'base'")):
            for copy in (False, True):
                with pytest.raises(UnsupportedTaskError, match="generates text") as refused:
                    engine.prepare(name, copy=copy)
                assert str(refused.value).startswith(f"{called} is a Qwen2ForCausalLM, ")
        response = client.post("/v1/embeddings", json={"model": "task", "input": "red green"})
        message = assert_error(response, 409, "task.unsupported")
        assert "Qwen2ForCausalLM" in message
