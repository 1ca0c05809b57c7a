"""`nps serve --engine vllm`: whatever clients and operators do, every answer is its task's or a
defined error, and the engine goes on."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import chain, cycle, islice

import httpx
import pytest
import torch

from formats.container import Container
from formats.writer import ContainerWriter
from nps_store.compress import Options, TaskSource, add
from tests.nps_store.models import cast
from tests.server.engines.vllm.running import ask, running, wait_until
from tests.server.engines.vllm.scenario import LONG, NAMES, PROMPTS, mix

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]

SOON_S = 20
STREAM = 900
"""Tokens of an answer that something happens during."""
BASE = "base"


@pytest.fixture(scope="module")
def zoo(zoo_of):
    return zoo_of("llama")


@pytest.fixture(scope="module")
def stock(zoo):
    """What stock vLLM says with each task's checkpoint; the base by its name, too."""
    said = ask(zoo, "stock")
    return said | {BASE: said["None"]}


@pytest.fixture(scope="module")
def store(zoo, tmp_path_factory):
    """The zoo's, with tasks that will be removed and replaced, or should not be served at all."""
    root = tmp_path_factory.mktemp("serve")
    path = shutil.copy(zoo.store, root / "tasks.nps")
    for name, source in {"gone": "fifth", "swap": "lossless", "broken": "fifth"}.items():
        put(path, name, zoo.dense(source))
    stops = shutil.copytree(zoo.dense("second"), root / "stops")
    generation = json.loads((stops / "generation_config.json").read_text())
    (stops / "generation_config.json").write_text(json.dumps(generation | {"eos_token_id": [0, 7]}))
    put(path, "stops", stops)
    add(path, [TaskSource("halved", cast(zoo.dense("second"), root / "halved", torch.bfloat16))],
        options=Options("dither", keep=0.3, dtype="BF16"), base=zoo.base)  # fmt: skip
    flip(path, "broken")
    return path


def put(store, name, directory, *, replace=False):
    source = TaskSource(name, directory)
    base = None
    add(store, [source], options=Options("exact"), base=base, replace=replace)


def remove(store, name):
    with ContainerWriter.open(store) as writer:
        writer.remove_task(name)
        writer.commit()


def flip(store, name):
    """Damage a task's weights on disk, or repair them."""
    with Container.open(store) as container:
        entry = container.root.tasks[name]
    with store.open("r+b") as file:
        file.seek(entry.first_offset + 256)
        byte = file.read(1)[0]
        file.seek(entry.first_offset + 256)
        file.write(bytes([byte ^ 0xFF]))


@pytest.fixture(scope="module")
def server(store, zoo, stock):
    with running(store, "--base", str(zoo.base)) as server:
        yield server


def test_the_tasks_are_models_and_what_is_wrong_with_some_is_known(server):
    assert {BASE, "second", "fifth", "lossless", "gone", "swap"} <= server.models()
    states = server.states()
    assert states["second"]["state"] == "ready"
    assert {name for name, row in states.items() if row["reason"]} == {"broken", "stops", "halved"}


def test_probes_ask_for_no_key_and_operators_for_theirs(server):
    for path in ("/health", "/ready", "/metrics"):
        assert server.client.get(path).status_code == 200
    refused = server.client.get("/admin/tasks")
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("name", [BASE, *NAMES[1:]])
def test_each_task_says_what_its_checkpoint_says(server, stock, name):
    expected = stock[name]["prompts"]
    assert [server.complete(name, prompt, 90) for prompt in PROMPTS] == expected


def test_one_prompt_under_alternating_tasks(server, stock):
    for name in ["second", "lossless", BASE] * 3:
        assert server.complete(name, LONG, 24) == stock[name]["long"]


def test_chat_logprobs_and_streaming_are_vllms_own(server, stock):
    asked = {"model": "fifth", "temperature": 0, "max_tokens": 8, "logprobs": True,
             "messages": [{"role": "user", "content": PROMPTS[0]}]}  # fmt: skip
    answer = server.client.post("/v1/chat/completions", json=asked)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["choices"][0]["logprobs"]["content"]) == 8
    plain = server.ask("fifth", PROMPTS[0], 8).json()["choices"][0]["text"]
    assert answer.json()["choices"][0]["message"]["content"] == plain
    pieces = list(server.stream("fifth", PROMPTS[0], 90))
    assert joined(pieces) == stock["fifth"]["prompts"][0]
    assert len(pieces) > 10


def test_interleaved_requests_streaming_and_not(server, stock):
    """64 of four tasks and the base."""
    names = {None: BASE, "fifth": "swap"} | {n: n for n in ("second", "lossless", "adapter")}
    requests = list(islice(cycle(mix()), 64))

    def say(request):
        (prompt, name, length), streams = request
        if streams:
            return joined(server.stream(names[name], PROMPTS[prompt], length))
        return server.complete(names[name], PROMPTS[prompt], length)

    with ThreadPoolExecutor(32) as pool:
        said = list(pool.map(say, zip(requests, cycle([True, False, False]), strict=False)))
    for (prompt, name, length), tokens in zip(requests, said, strict=True):
        source = "lossless" if names[name] == "swap" else names[name]
        assert tokens == stock[source]["prompts"][prompt][:length]


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("nobody", 404, "does not exist"),
        ("broken", 500, "stored bytes are damaged"),
        ("stops", 409, "'eos_token_id' in generation_config.json"),
        ("halved", 409, "compressed for BF16, vLLM runs float32"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(server, stock, name, status, said):
    answer = server.ask(name, PROMPTS[0], 8)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]["message"]
    assert name in answer.json()["error"]["message"]
    assert server.complete("second", PROMPTS[0], 8) == stock["second"]["prompts"][0][:8]


def test_a_client_that_leaves_ends_its_request(server):
    pieces = server.stream("second", PROMPTS[0], STREAM)
    next(pieces)
    pieces.close()
    wait_until(lambda: server.logged()[-1]["outcome"] == "cancelled", SOON_S, server)
    assert server.logged()[-1]["n_generated_tokens"] < STREAM


def test_a_task_added_while_serving(server, store, stock, zoo):
    put(store, "late", zoo.dense("second"))
    wait_until(lambda: "late" in server.models(), SOON_S, server)  # nobody asked it to look
    assert server.complete("late", PROMPTS[1], 90) == stock["second"]["prompts"][1]


def test_a_task_removed_in_flight_finishes(server, store, stock):
    undisturbed, said = server.complete("gone", PROMPTS[0], STREAM), []
    assert undisturbed[:90] == stock["fifth"]["prompts"][0]
    with in_flight(server, "gone", said):
        remove(store, "gone")
        assert server.admin("refresh").json()["changed"] is True
        assert server.states()["gone'"]["in_flight"] == 1
        assert server.ask("gone", PROMPTS[0], 8).status_code == 404
    assert said == undisturbed
    wait_until(lambda: "gone'" not in server.states(), SOON_S, server)
    assert server.complete("fifth", PROMPTS[0], 8) == stock["fifth"]["prompts"][0][:8]


def test_a_task_replaced_in_flight_finishes_as_what_it_was(server, store, stock, zoo):
    """And what comes next is the new one's, whatever the prefix cache holds of the old."""
    assert server.complete("swap", LONG, 24) == stock["lossless"]["long"]
    undisturbed, said = server.complete("swap", PROMPTS[0], STREAM), []
    assert undisturbed[:90] == stock["lossless"]["prompts"][0]
    with in_flight(server, "swap", said):
        put(store, "swap", zoo.dense("second"), replace=True)
        server.admin("refresh")
        assert server.states()["swap'"]["in_flight"] == 1
        assert server.complete("swap", LONG, 24) == stock["second"]["long"]
    assert said == undisturbed
    assert server.complete("swap", PROMPTS[0], 90) == stock["second"]["prompts"][0]


@contextmanager
def in_flight(server, name, said):
    """A long answer under way, of which some has come; on leaving, all of it has."""
    pieces = server.stream(name, PROMPTS[0], STREAM)
    said += next(pieces)
    rest = threading.Thread(target=lambda: said.extend(joined(pieces)))
    rest.start()
    try:
        yield
    finally:
        rest.join()


def joined(pieces):
    return list(chain.from_iterable(pieces))


def test_an_operator_takes_a_task_out_of_service_and_back(server, stock):
    assert server.admin("tasks/lossless/remove").json()["state"] == "withdrawn"
    assert "lossless" not in server.models()
    assert server.states()["lossless"]["state"] == "withdrawn"
    assert server.ask("lossless", PROMPTS[0], 8).status_code == 404
    assert server.admin("tasks/lossless/add").json()["state"] == "ready"
    assert server.complete("lossless", PROMPTS[0], 8) == stock["lossless"]["prompts"][0][:8]


def test_an_operator_pins_a_task(server):
    assert server.admin("tasks/second/pin").json()["pinned"] is True
    assert server.states()["second"]["pinned"] is True
    assert server.admin("tasks/second/unpin").json()["pinned"] is False
    for name, status in {"nobody": 404, "broken": 500, "stops": 409}.items():
        for verb in ("pin", "add"):
            assert server.admin(f"tasks/{name}/{verb}").status_code == status


def test_requests_are_counted_and_logged_by_task(server):
    before = server.metric('nps_tokens_total{kind="generated",task="fifth"}')
    headers = {"x-request-id": "mine"}
    asked = {"model": "fifth", "prompt": "red", "max_tokens": 5, "ignore_eos": True}
    server.client.post("/v1/completions", json=asked, headers=headers)
    assert server.metric('nps_tokens_total{kind="generated",task="fifth"}') == before + 5
    assert server.metric('nps_requests_total{outcome="cancelled",task="second"}') == 1
    for name in ("nps_switches_total", "nps_switch_seconds_total", "nps_weight_cache_hits_total",
                 "nps_queue_seconds_count", "nps_first_token_seconds_count"):  # fmt: skip
        assert server.metric(f'{name}{{task="fifth"}}') > 0
    assert "vllm:generation_tokens_total" in server.client.get("/metrics").text
    line = server.logged()[-1]
    assert (line["request_id"], line["task"], line["outcome"]) == ("cmpl-mine-0", "fifth", "length")


@pytest.fixture(scope="module")
def pair(store, zoo, server):
    """Two API server processes over one engine that keeps no task it does not need."""
    path = shutil.copy(store, store.with_name("pair.nps"))
    more = ["--api-server-count", "2", "--max-num-queued-reqs", "40"]
    with running(path, "--base", str(zoo.base), "--memory-budget", "1", vllm=more) as pair:
        yield pair, path


def everywhere(server, condition, n=12):
    """Asked of new connections, which both processes get some of, until all agree."""

    def agree():
        answers = []
        for _ in range(n):
            with httpx.Client(base_url=server.client.base_url, timeout=60) as client:
                answers.append(condition(client))
        return all(answers)

    wait_until(agree, SOON_S, server)


def names_at(client):
    return {card["id"] for card in client.get("/v1/models").json()["data"]}


def test_both_api_servers_learn_of_what_is_added_and_removed(pair, stock, zoo):
    server, store = pair
    put(store, "later", zoo.dense("second"))
    everywhere(server, lambda client: "later" in names_at(client))
    server.admin("tasks/lossless/remove")
    everywhere(server, lambda client: "lossless" not in names_at(client))
    server.admin("tasks/lossless/add")
    everywhere(server, lambda client: "lossless" in names_at(client))
    for name, source in {"later": "second", "lossless": "lossless"}.items():
        assert server.complete(name, PROMPTS[0], 90) == stock[source]["prompts"][0]


def test_a_task_damaged_on_disk_after_it_was_accepted(pair, stock):
    """It is read again at its next turn, since there is no room to keep it."""
    server, store = pair
    for name in ("swap", "fifth", "second"):
        server.complete(name, PROMPTS[0], 4)
    flip(store, "swap")
    answer = server.ask("swap", PROMPTS[1], 90)
    assert answer.status_code == 500, answer.text
    wait_until(lambda: server.states()["swap"]["state"] == "failed", SOON_S, server)
    answer = server.ask("swap", PROMPTS[1], 90)
    assert answer.json()["error"]["code"] == "server.task_quarantined"
    assert server.complete("fifth", PROMPTS[0], 90) == stock["fifth"]["prompts"][0]
    flip(store, "swap")
    assert server.admin("tasks/swap/add").json()["state"] != "failed"
    assert server.complete("swap", PROMPTS[1], 90) == stock["second"]["prompts"][1]


def test_more_requests_than_the_queue_takes(pair, stock):
    server, _ = pair
    with ThreadPoolExecutor(120) as pool:
        names = islice(cycle(["second", "fifth", BASE]), 300)
        asked = [(name, pool.submit(server.ask, name, PROMPTS[0], 90)) for name in names]
        answers = [(name, future.result()) for name, future in asked]
    assert {answer.status_code for _, answer in answers} == {200, 503}
    for name, answer in answers:
        if answer.status_code == 200:
            assert answer.json()["choices"][0]["token_ids"] == stock[name]["prompts"][0]
    n_answered = sum(answer.status_code == 200 for name, answer in answers if name == BASE)
    assert server.metric('nps_requests_total{outcome="length",task="base"}') == n_answered
