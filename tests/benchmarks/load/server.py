"""A server that answers as it is told: by the model's name."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOW_S = 0.3


class Handler(BaseHTTPRequestHandler):
    """`quick`, `busy` (429), `slow` (after SLOW_S), `gone` (hangs up), `words` (a stream)."""

    def do_GET(self) -> None:
        models = [{"id": "base"}, *({"id": name, "parent": "base"} for name in ("quick", "busy"))]
        self._answer(200, {"data": models})

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        body = json.loads(self.rfile.read(length))
        self.server.asked.append(body)
        match body["model"]:
            case "busy":
                self._answer(429, {"error": {"message": "later"}})
            case "gone":
                self.connection.close()
            case "words":
                self._stream(body["max_tokens"])
            case name:
                time.sleep(SLOW_S if name == "slow" else 0)
                self._answer(200, {"data": []})

    def _answer(self, status: int, content: object) -> None:
        raw = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _stream(self, n_tokens: int) -> None:
        self.send_response(200)
        self.end_headers()
        events: list[object] = [{"choices": [{"text": "a"}]}, {"choices": [{"text": "b"}]}]
        events.append({"choices": [], "usage": {"completion_tokens": n_tokens}})
        for event in events:
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()
            time.sleep(SLOW_S / 3)
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Remembers what was asked."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, object]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def running() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
