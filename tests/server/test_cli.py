"""`nps serve` as a process of its own, on a real store."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading

import httpx
import numpy as np
import pytest

from tests.tiny import Spec, TinyStore

# The verb alone; the whole command line finds it through its entry point.
SERVE = "import typer, server.cli; typer.run(server.cli.serve)"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TinyStore:
    specs = {"section": Spec(("admin", "games"), seed=1), "role": Spec(("a", "b", "c"), seed=2)}
    return TinyStore.create(tmp_path_factory.mktemp("cli"), specs)


def serve(*arguments: str, **more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SERVE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def test_serving_a_store_until_a_signal(store):
    with serve(str(store.path), "--port", "0", "--json", "--admin-key", "k") as running:
        try:
            ready = json.loads(running.stdout.readline())
            assert ready["tasks"] == ["role", "section"]
            url = ready["url"]
            expected = store.expected("role", ["small tool"])[0]
            body = {"model": "role", "input": "small tool"}
            answer = httpx.post(f"{url}/classify", json=body).json()
            np.testing.assert_allclose(answer["data"][0]["probs"], expected, atol=1e-5)
            assert httpx.get(f"{url}/admin/tasks").status_code == 401

            outcomes: list[int | str] = []

            def hammer() -> None:
                with httpx.Client() as client:
                    for name in itertools.cycle(["section", "role"]):
                        body = {"model": name, "input": ["tool"] * 50}
                        try:
                            outcomes.append(client.post(f"{url}/classify", json=body).status_code)
                        except httpx.ConnectError:
                            return
                        except httpx.TransportError as error:
                            outcomes.append(repr(error))
                            return

            threads = [threading.Thread(target=hammer) for _ in range(4)]
            for thread in threads:
                thread.start()
            while len(outcomes) < 20:
                threading.Event().wait(0.01)
            running.send_signal(signal.SIGTERM)
            assert running.wait(20) == 0
            for thread in threads:
                thread.join(10)
        finally:
            if running.poll() is None:
                running.kill()
        stderr = running.stderr.read()
    # Only a kept-alive connection that the server closes at the very moment that the client reuses
    # it can end without an answer; how the client sees that depends on who was first.
    races = ("disconnected", "reset by peer", "broken pipe")
    failed = [str(outcome).lower() for outcome in outcomes if outcome != 200]
    assert [text for text in failed if not any(race in text for race in races)] == []
    assert outcomes.count(200) >= 20
    lines = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    answered = [line for line in lines if line.get("route") == "/classify"]
    assert {line["status"] for line in answered} == {200}
    assert len(answered) == outcomes.count(200) + 1  # what was accepted was answered
    assert {line["task"] for line in answered} == {"role", "section"}
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["--engine", "nope"], {}, "expected torch or vllm, got 'nope'"),
        ([], {"NPS_QUANTUM_S": "-1"}, "NPS_QUANTUM_S: Input should be greater than 0, got '-1'"),
    ],
)
def test_wrong_usage_is_exit_2_and_one_sentence(
    store, monkeypatch, arguments, environment, sentence
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")
    with serve(str(store.path), *arguments) as running:
        _, stderr = running.communicate(timeout=60)
        assert running.returncode == 2
    assert sentence in stderr
    assert "Traceback" not in stderr
