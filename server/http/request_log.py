"""One JSON line, one count and one id per request, and the last resort for unexpected errors."""

from __future__ import annotations

import dataclasses
import logging
import re
import time
import uuid
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders

from server.http.errors import error_response
from server.trace import RequestTrace

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from server.metrics import Metrics

logger = logging.getLogger("server.request")

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class RequestLog:
    """ASGI middleware around everything else; puts a RequestTrace into the request's state."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request and write it down, however it ends."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        trace = RequestTrace(_request_id(Headers(scope=scope).get("x-request-id", "")))
        scope.setdefault("state", {})["trace"] = trace
        status: int | None = None

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = trace.request_id
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            logger.exception("unexpected error", extra={"request_id": trace.request_id})
            trace.error = "internal_error"
            if status is None:
                response = error_response(
                    500,
                    "an unexpected error happened; the server's log says more",
                    code="internal_error",
                )
                await response(scope, receive, noted)
        finally:
            self._write(scope, trace, status, time.monotonic() - began)

    def _write(self, scope: Scope, trace: RequestTrace, status: int | None, seconds: float) -> None:
        # The route's template and never the path: a client could make paths without limit.
        route = getattr(scope.get("route"), "path", "_unmatched")
        shown_status = "cancelled" if status is None else str(status)
        self._metrics.requests.labels(route=route, task=trace.task or "", status=shown_status).inc()
        self._metrics.request_seconds.labels(route=route).observe(seconds)
        fields = dataclasses.asdict(trace) | {
            "method": scope["method"],
            "route": route,
            "status": status,
            "duration_s": round(seconds, 6),
            "queue_s": round(trace.queue_s, 6),
            "switch_s": round(trace.switch_s, 6),
        }
        logger.info("request", extra=fields)


def _request_id(given: str) -> str:
    """The client's id where it is safe to log and echo, else a new one."""
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
