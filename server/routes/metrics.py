"""`GET /metrics`: Prometheus' text format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

if TYPE_CHECKING:
    from server.metrics import Metrics


def metrics_routes(metrics: Metrics) -> APIRouter:
    """The route that Prometheus scrapes."""
    router = APIRouter(tags=["operations"])

    @router.get("/metrics")
    async def exposition() -> Response:
        """Every metric of this application."""
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    return router
