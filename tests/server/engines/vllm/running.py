"""Real vLLM in processes of its own: a scenario, or a server and what a client does to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from tests.server.engines.vllm.models import CONTEXT, Zoo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ADMIN_KEY = "operator"
START_S = 120
OPTIONS = [
    "--dtype", "float32", "--enforce-eager", "--max-model-len", str(CONTEXT), "--max-num-seqs",
    "16", "--kv-cache-memory-bytes", str(32 << 20), "--block-size", "32", "--seed", "0",
]  # fmt: skip
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def ask(zoo: Zoo, which: str) -> dict[str, Any]:
    """What `scenario` answers; asked once of a zoo."""
    answers = zoo.root / f"{which}.json"
    if answers.exists():
        return json.loads(answers.read_text())
    command = [sys.executable, "-m", "tests.server.engines.vllm.scenario"]
    command += [str(zoo.root), zoo.kind, which]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads(answers.read_text())


def environment() -> dict[str, str]:
    """One thread, on any core: several that wait for each other crawl on a busy machine."""
    return os.environ | {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


class Running:
    """A server that is ready.

    Attributes:
        client: For any route.
        log: Where it writes.
    """

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.client = httpx.Client(base_url=url, timeout=60)
        self.log = log

    def complete(self, model: str, prompt: str, n_tokens: int) -> list[int]:
        """Greedy token ids."""
        answer = self.ask(model, prompt, n_tokens)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["token_ids"]

    def ask(self, model: str, prompt: str, n_tokens: int, **more: Any) -> httpx.Response:
        return self.client.post("/v1/completions", json=body(model, prompt, n_tokens, **more))

    def stream(self, model: str, prompt: str, n_tokens: int) -> Iterator[list[int]]:
        """Greedy token ids as they come."""
        asked = body(model, prompt, n_tokens, stream=True)
        with self.client.stream("POST", "/v1/completions", json=asked) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                data = line.removeprefix("data: ")
                if data and data != "[DONE]":
                    yield json.loads(data)["choices"][0]["token_ids"]

    def admin(self, verb: str = "", *, method: str = "POST") -> httpx.Response:
        key = {"Authorization": f"Bearer {ADMIN_KEY}"}
        return self.client.request(method, f"/admin/{verb}", headers=key)

    def states(self) -> dict[str, dict[str, Any]]:
        """By name; of a content that drains, by name and a prime."""
        rows = self.admin("tasks", method="GET").json()["data"]
        return {row["task"] + "'" * (row["state"] == "draining"): row for row in rows}

    def models(self) -> set[str]:
        return {card["id"] for card in self.client.get("/v1/models").json()["data"]}

    def metric(self, line: str) -> float:
        """Value of a sample; 0 where there is none yet."""
        for found in self.client.get("/metrics").text.splitlines():
            if found.startswith(line + " "):
                return float(found.rsplit(" ", 1)[1])
        return 0.0

    def logged(self) -> list[dict[str, Any]]:
        """The lines of requests."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [each for each in map(json.loads, lines) if each["logger"] == "server.request"]


def body(model: str, prompt: str, n_tokens: int, **more: Any) -> dict[str, Any]:
    return {
        "model": model, "prompt": prompt, "max_tokens": n_tokens, "temperature": 0,
        "ignore_eos": True, "return_token_ids": True, **more,
    }  # fmt: skip


@contextmanager
def running(store: Path, *words: str, vllm: Sequence[str] = ()) -> Iterator[Running]:
    """Start, wait until it is ready, and end it by SIGTERM."""
    port, log = free_port(), store.with_suffix(f".{os.getpid()}.log")
    template = store.with_suffix(".jinja")
    template.write_text(TEMPLATE)
    code = "from nps_store.cli import main; main()"
    command = [
        sys.executable, "-c", code, "serve", str(store), "--engine", "vllm", "--port", str(port),
        "--admin-key", ADMIN_KEY, *words, "--", *OPTIONS, "--chat-template", str(template), *vllm,
    ]  # fmt: skip
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment())
    server = Running(process, f"http://127.0.0.1:{port}", log)
    try:
        wait_until(lambda: is_ready(server), START_S, server)
        yield server
    finally:
        server.client.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def is_ready(server: Running) -> bool:
    assert server.process.poll() is None, server.log.read_text()[-4000:]
    try:
        return server.client.get("/ready").status_code == 200
    except httpx.TransportError:
        return False


def wait_until(condition, timeout_s: float, server: Running) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, server.log.read_text()[-4000:]
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
