"""Running an application in this process until a signal: listen, announce, drain, leave."""

from __future__ import annotations

import json
import signal
import socket
import sys
from typing import TYPE_CHECKING

import uvicorn

from server.errors import ListenError

if TYPE_CHECKING:
    from types import FrameType

    from fastapi import FastAPI

    from server.engines import Catalog
    from server.service import Service
    from server.settings import Settings

READY_SCHEMA = "nps.serve/1"
_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one. Raises ListenError."""
    listener: socket.socket | None = None
    try:
        # The protocol is named, because asyncio turns Nagle's delay off only where it is TCP's.
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def run(
    app: FastAPI,
    *,
    settings: Settings,
    listener: socket.socket,
    ready_on_stdout: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish within `settings.drain_s`.

    Args:
        app: What `create_app` made.
        settings: The same that it was made with.
        listener: From `listen`; closed in the end.
        ready_on_stdout: Say on stdout, as one JSON document, where the service listens.

    Raises:
        NpsError: The base could not be served; nothing was answered but probes.
    """
    service: Service = app.state.service
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=int(settings.drain_s) or 1,
        )
    )
    url = _url(listener)

    def announce(catalog: Catalog) -> None:
        sys.stderr.write(f"nps: ready on {url} (base {catalog.base}, {len(catalog.tasks)} tasks)\n")
        sys.stderr.flush()
        if ready_on_stdout:
            document = {"schema": READY_SCHEMA, "url": url, "base": catalog.base}
            sys.stdout.write(json.dumps(document | {"tasks": sorted(catalog.tasks)}) + "\n")
            sys.stdout.flush()

    def give_up(_: Exception) -> None:
        server.should_exit = True

    def leave(_signal: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    service.on_ready = announce
    service.on_failure = give_up
    # uvicorn raises the signal again when it has drained; it shall find this handler and not the
    # default one, which would end the process with the signal instead of 0.
    previous = {sig: signal.signal(sig, leave) for sig in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listener])
    finally:
        for sig, handler in previous.items():
            signal.signal(sig, handler)
    if service.failure is not None:
        raise service.failure


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
