"""A process that serves: ready line, draining on a signal, exit codes. The engine is the toy."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

from server.errors import ListenError
from server.run import listen
from tests.server.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVE = """
import sys, threading, time
from formats.errors import NpsError
from nps_store.errors import BaseMismatchError
from server import logs
from server.app import create_app
from server.run import listen, run
from server.settings import Settings
from tests.server.toy import ToyEngine

class SlowEngine(ToyEngine):
    def run(self, prepared, token_ids):
        time.sleep(0.5)
        return super().run(prepared, token_ids)

engine = SlowEngine.with_tasks(role=2)
if "--wrong-base" in sys.argv:
    engine.open_error = BaseMismatchError("tensor 'a' differs")
logs.configure(sys.stderr)
settings = Settings(drain_s=5)
try:
    run(create_app(settings, engine), settings=settings, listener=listen("127.0.0.1", 0),
        ready_on_stdout=True)
except NpsError as error:
    sys.stderr.write(f"nps: {error}\\n")
    sys.exit(error.exit_code)
sys.stderr.write(f"closed={not engine.is_open}\\n")
"""


@contextlib.contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.kill()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_requests_finish_and_exits_0(sent):
    with process() as running, ThreadPoolExecutor(1) as pool:
        ready = json.loads(running.stdout.readline())
        assert ready["schema"] == "nps.serve/1"
        assert (ready["base"], ready["tasks"]) == ("toy-base", ["role"])
        url = ready["url"]
        body = {"model": "role", "input": "hello"}
        answer = pool.submit(httpx.post, f"{url}/classify", json=body, timeout=10)
        wait_until(lambda: "nps_queue_depth 1.0" in httpx.get(f"{url}/metrics").text)
        running.send_signal(sent)
        assert answer.result().status_code == 200
        assert running.wait(10) == 0
        stderr = running.stderr.read()
    assert f"nps: ready on {url} (base toy-base, 1 tasks)" in stderr
    assert stderr.rstrip().endswith("closed=True")
    lines = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    assert [line["status"] for line in lines if line.get("route") == "/classify"] == [200]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def test_a_base_that_cannot_be_served_ends_the_process_with_its_exit_code():
    with process("--wrong-base") as running:
        _, stderr = running.communicate(timeout=10)
        assert running.returncode == 32
    assert stderr == "nps: tensor 'a' differs\n"


def test_an_address_in_use_is_one_sentence():
    with listen("127.0.0.1", 0) as taken:
        assert taken.proto == socket.IPPROTO_TCP  # else every answer waits for Nagle's delay
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=rf"cannot listen on 127\.0\.0\.1:{port}: \w+"):
            listen("127.0.0.1", port)
    with pytest.raises(ListenError, match="no-such-host"):
        listen("no-such-host.invalid", 0)


def test_ipv6_addresses_are_written_with_brackets():
    from server.run import _url

    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        listener = listen("::1", 0)
    except ListenError:
        pytest.skip("no IPv6 loopback here")
    with listener:
        assert _url(listener) == f"http://[::1]:{listener.getsockname()[1]}"
