"""`GET /health` and `/ready`: is the process alive, and does it answer requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from server.errors import NotReadyError
from server.http.errors import error_response

if TYPE_CHECKING:
    from server.service import Service


def health_routes(service: Service) -> APIRouter:
    """The routes of probes; they ask for no key."""
    router = APIRouter(tags=["health"])

    @router.get("/health")
    async def health() -> Response:
        """Answer 200 as long as the event loop turns."""
        return Response()

    @router.get("/ready")
    async def ready() -> JSONResponse:
        """Answer 200 when the base is loaded and identified and the weights are sound, else 503."""
        reasons = service.reasons_not_ready()
        if not reasons:
            return JSONResponse({"ready": True})
        return error_response(
            503,
            f"not ready: {'; '.join(reasons)}",
            code=NotReadyError.id,
            headers={"Retry-After": "1"},
            ready=False,
            reasons=reasons,
        )

    return router
