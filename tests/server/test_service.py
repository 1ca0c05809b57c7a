"""What happens when clients come together, go away, or the engine fails under them."""

from __future__ import annotations

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from server.app import create_app
from server.errors import EngineFailedError
from server.settings import Settings
from tests.server.conftest import assert_error, metric, serving, wait_until
from tests.server.toy import ToyEngine, ToyTask


def classify(client, model: str, text: str = "a"):
    return client.post("/classify", json={"model": model, "input": text})


def test_mixed_requests_get_their_own_tasks_answers(toy):
    with serving(toy) as client, ThreadPoolExecutor(8) as pool:
        asked = [(("section", "role")[i % 2], f"text number {i}") for i in range(60)]
        for (model, text), response in zip(
            asked, pool.map(lambda pair: classify(client, *pair), asked), strict=True
        ):
            row = response.json()["data"][0]
            np.testing.assert_allclose(row["probs"], toy.expected(model, text), rtol=1e-6)
            best = int(np.argmax(row["probs"]))
            assert row["label"] == f"{model}-{best}"


def test_requests_of_one_task_share_a_batch(toy):
    with serving(toy) as client, ThreadPoolExecutor(8) as pool:
        toy.gate.clear()
        answers = [pool.submit(classify, client, "role", f"t{i}") for i in range(8)]
        wait_until(lambda: metric(client, "nps_queue_depth") == 8)
        wait_until(lambda: len(toy.batches) == 1)
        toy.gate.set()
        assert all(answer.result().status_code == 200 for answer in answers)
        assert sum(n for _, n in toy.batches) == 8
        assert len(toy.batches) < 8


def test_a_full_queue_is_answered_429(toy):
    with serving(toy, max_queued_inputs=4, max_queued_inputs_per_task=3) as client:
        with ThreadPoolExecutor(8) as pool:
            toy.gate.clear()
            running = [pool.submit(classify, client, "role") for _ in range(3)]
            wait_until(lambda: metric(client, "nps_queue_depth") == 3)
            refused = classify(client, "role")
            assert "queue is full" in assert_error(refused, 429, "server.overloaded")
            assert int(refused.headers["retry-after"]) >= 1
            running.append(pool.submit(classify, client, "section"))
            wait_until(lambda: metric(client, "nps_queue_depth") == 4)
            assert_error(classify(client, "section"), 429, "server.overloaded")
            toy.gate.set()
            assert [answer.result().status_code for answer in running] == [200] * 4
        assert classify(client, "role").status_code == 200
        assert metric(client, "nps_queue_depth") == 0


def test_a_failing_batch_fails_its_own_requests_only(toy):
    toy.run_errors["role"] = RuntimeError("out of memory")
    with serving(toy) as client:
        assert classify(client, "section").status_code == 200
        message = assert_error(classify(client, "role"), 500, "server.engine_failed")
        assert "out of memory" in message
        answer = classify(client, "section", "hello").json()["data"][0]["probs"]
        np.testing.assert_allclose(answer, toy.expected("section", "hello"), rtol=1e-6)
        toy.run_errors.clear()
        assert classify(client, "role").status_code == 200  # not held against the task
        assert metric(client, "nps_engine_failures_total") == 1


def test_output_that_json_cannot_carry_is_an_engine_failure(toy):
    toy.put(ToyTask("section", "section@2", float("nan"), ("x", "y")))
    with serving(toy) as client:
        message = assert_error(classify(client, "section"), 500, "server.engine_failed")
        assert "not finite" in message


def test_a_task_that_cannot_be_put_in_place_is_quarantined(toy):
    with serving(toy) as client:
        toy.switch_error = RuntimeError("index out of range")
        assert_error(classify(client, "role"), 500, "server.engine_failed")
        toy.switch_error = None
        assert_error(classify(client, "role"), 500, "server.task_quarantined", param="model")
        assert classify(client, "section").status_code == 200
        assert client.get("/ready").status_code == 200
        toy.put(ToyTask("role", "role@2", 5.0, ("x", "y")))
        wait_until(lambda: classify(client, "role").status_code == 200)


def test_weights_that_cannot_be_trusted_take_the_server_out_of_service(toy):
    with serving(toy) as client:
        toy.is_consistent = False
        toy.run_errors["role"] = RuntimeError("half-written")
        assert_error(classify(client, "role"), 500, "server.engine_failed")
        wait_until(lambda: client.get("/ready").status_code == 503)
        message = assert_error(classify(client, "section"), 503, "server.not_ready")
        assert "not what they were" in message
        assert client.get("/health").status_code == 200


def test_a_request_in_flight_finishes_on_the_weights_it_started_with(toy):
    with serving(toy) as client, ThreadPoolExecutor(2) as pool:
        classify(client, "role")
        toy.gate.clear()
        n_before = len(toy.batches)
        blocker = pool.submit(classify, client, "section", "b")
        wait_until(lambda: len(toy.batches) == n_before + 1)
        waiting = pool.submit(classify, client, "role", "hello")  # leased, queued, not started
        wait_until(lambda: metric(client, "nps_queue_depth") == 2)
        old = toy.expected("role", "hello")
        toy.put(ToyTask("role", "role@2", 7.0, ("x", "y")))
        wait_until(lambda: "role@2" in client.get("/v1/models/role").text)
        toy.gate.set()
        np.testing.assert_allclose(waiting.result().json()["data"][0]["probs"], old, rtol=1e-6)
        assert blocker.result().status_code == 200
        new = classify(client, "role", "hello").json()["data"][0]
        np.testing.assert_allclose(new["probs"], toy.expected("role", "hello"), rtol=1e-6)
        assert new["label"] in ("x", "y")


def test_tasks_come_and_go_without_a_restart(toy):
    with serving(toy) as client:
        toy.put(ToyTask("new", "new@1", 6.0, ("x", "y")))
        wait_until(lambda: classify(client, "new").status_code == 200)
        toy.remove("new")
        wait_until(lambda: classify(client, "new").status_code == 404)
        assert [m["id"] for m in client.get("/v1/models").json()["data"]] == [
            "toy-base",
            "plain",
            "role",
            "section",
        ]


def test_a_store_that_cannot_be_looked_at_is_said_once_and_served_as_it_was(toy, caplog):
    with serving(toy) as client, caplog.at_level(logging.ERROR, logger="server"):
        toy.refresh_error = FileNotFoundError("tasks.nps")
        wait_until(lambda: "generation failed" in caplog.text)
        assert classify(client, "role").status_code == 200
        toy.put(ToyTask("new", "new@1", 6.0, ("x", "y")))
        toy.refresh_error = None
        wait_until(lambda: classify(client, "new").status_code == 200)
        assert caplog.text.count("generation failed") == 1


def test_a_store_remade_for_another_base_ends_the_service(toy):
    with serving(toy) as client:
        toy.refresh_error = EngineFailedError("the store was remade for another base")
        wait_until(lambda: client.get("/ready").status_code == 503)
        message = assert_error(classify(client, "role"), 503, "server.not_ready")
        assert "another base" in message
        assert client.get("/health").status_code == 200


async def ask(app, body: dict, *, leave: asyncio.Event | None = None) -> int | None:
    """One request through ASGI; the client disconnects when `leave` is set."""
    sent: list[dict] = []
    messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/classify",
        "raw_path": b"/classify",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }

    async def receive() -> dict:
        if messages:
            return messages.pop()
        await (leave or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"] if sent else None


def test_the_work_of_clients_that_have_gone_is_dropped(toy):
    app = create_app(Settings(), toy)

    async def main() -> None:
        async with app.router.lifespan_context(app):
            while app.state.service.reasons_not_ready():
                await asyncio.sleep(0.005)
            toy.gate.clear()
            leave = asyncio.Event()
            blocker = asyncio.create_task(ask(app, {"model": "section", "input": "a"}))
            while not toy.batches:
                await asyncio.sleep(0.005)
            gone = [
                asyncio.create_task(ask(app, {"model": "role", "input": ["a"] * 40}, leave=leave))
                for _ in range(3)
            ]
            stays = asyncio.create_task(ask(app, {"model": "role", "input": "a"}))
            await asyncio.sleep(0.1)
            leave.set()
            assert await asyncio.gather(*gone) == [499] * 3
            toy.gate.set()
            assert await asyncio.gather(blocker, stays) == [200, 200]

    asyncio.run(main())
    assert toy.batches == [("section", 1), ("role", 1)]


def test_leaving_the_lifespan_closes_the_engine_and_fails_what_waits(toy):
    app = create_app(Settings(), toy)

    async def main() -> int | None:
        async with app.router.lifespan_context(app):
            while app.state.service.reasons_not_ready():
                await asyncio.sleep(0.005)
            toy.gate.clear()
            running = asyncio.create_task(ask(app, {"model": "section", "input": "a"}))
            while not toy.batches:
                await asyncio.sleep(0.005)
            waiting = asyncio.create_task(ask(app, {"model": "role", "input": "a"}))
            await asyncio.sleep(0.05)
            asyncio.get_running_loop().call_later(0.1, toy.gate.set)
        assert await running == 200  # the batch that runs is finished
        return await waiting

    assert asyncio.run(main()) == 503
    assert not toy.is_open


def test_one_log_line_a_request_without_its_text(toy, caplog):
    with serving(toy) as client, caplog.at_level(logging.INFO, logger="server.request"):
        caplog.clear()
        headers = {"x-request-id": "abc-1"}
        body = {"model": "role", "input": "a secret text"}
        response = client.post("/classify", json=body, headers=headers)
        assert response.headers["x-request-id"] == "abc-1"
        lines = [r for r in caplog.records if r.name == "server.request"]
        assert len(lines) == 1
        fields = vars(lines[0])
        assert fields["request_id"] == "abc-1"
        assert (fields["task"], fields["content_hash"], fields["generation"]) == (
            "role",
            "role@1",
            1,
        )
        assert (fields["status"], fields["n_inputs"], fields["n_tokens"]) == (200, 1, 13)
        assert fields["cache"] == "miss"
        assert min(fields["queue_s"], fields["switch_s"], fields["duration_s"]) >= 0
        assert "secret" not in str(fields)
        bad_id = {"x-request-id": "line\tbreak"}
        assert client.get("/health", headers=bad_id).headers["x-request-id"] != "line\tbreak"


def test_metrics_name_only_tasks_of_the_store(toy):
    with serving(toy) as client:
        classify(client, "role")
        for i in range(20):
            classify(client, f"invented-{i}")
        text = client.get("/metrics").text
        assert "invented" not in text
        name = 'nps_requests_total{route="/classify",status="404",task="_unknown"}'
        assert metric(client, name) == 20
        assert metric(client, 'nps_tokens_total{task="role"}') == 1
        assert metric(client, "nps_tasks_ready") == 1
        assert metric(client, "nps_weight_cache_bytes") == 100
        assert metric(client, "nps_swap_seconds_count") == 1
        assert metric(client, 'nps_materialize_seconds_count{stage="load"}') == 2
        families = [line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE")]
        for name, kind in families:
            assert name.startswith("nps_")
            if kind == "counter":
                assert name.endswith("_total")
            if kind == "histogram":
                assert name.endswith(("_seconds", "_inputs"))


def test_two_applications_share_nothing(toy):
    other = ToyEngine.with_tasks(role=2)
    with serving(toy) as one, serving(other) as two:
        classify(one, "role")
        assert metric(one, "nps_tasks_ready") == 1
        assert metric(two, "nps_tasks_ready") == 0


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_in_both_encodings(toy, encoding):
    import base64

    with serving(toy) as client:
        body = {"model": "plain", "input": ["a", "bc"], "encoding_format": encoding}
        answer = client.post("/v1/embeddings", json=body).json()
        rows = [item["embedding"] for item in answer["data"]]
        if encoding == "base64":
            rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
        expected = [toy.expected("plain", text) for text in ("a", "bc")]
        np.testing.assert_array_equal(rows, expected)
        assert answer["usage"] == {
            "prompt_tokens": 3,
            "total_tokens": 3,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
        }


def test_inputs_of_every_shape_and_truncation(toy):
    with serving(toy) as client:

        def tokens(**body) -> int:
            response = client.post("/classify", json={"model": "role", **body})
            assert response.status_code == 200, response.text
            return response.json()["usage"]["prompt_tokens"]

        assert tokens(input="abcd") == 4
        assert tokens(input=["abcd", "e"]) == 5
        assert tokens(input=[1, 2, 3]) == 3
        assert tokens(input=[[1, 2, 3], [4]]) == 4
        assert tokens(input="abcd", truncate_prompt_tokens=2) == 2
        assert tokens(input="abcd", truncate_prompt_tokens=-1) == 4
