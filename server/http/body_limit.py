"""Refuse large bodies before they are held in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """ASGI middleware: a body of more than `max_nbytes` is refused with 413 while it arrives."""

    def __init__(self, app: ASGIApp, *, max_nbytes: int) -> None:
        self._app = app
        self._max_nbytes = max_nbytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what the application reads."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        n_read = 0

        async def counted() -> Message:
            nonlocal n_read
            if declared.isdecimal() and int(declared) > self._max_nbytes:
                raise self._refusal(declared)
            message = await receive()
            n_read += len(message.get("body", b""))
            if n_read > self._max_nbytes:
                raise self._refusal(f"at least {n_read}")
            return message

        await self._app(scope, counted, send)

    def _refusal(self, got: str) -> HTTPException:
        return HTTPException(
            413, f"the body is too large: at most {self._max_nbytes} bytes are read, got {got}"
        )
