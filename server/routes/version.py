"""`GET /version`."""

from __future__ import annotations

from fastapi import APIRouter

from server.metrics import package_version


def version_routes(*, engine: str) -> APIRouter:
    """The route that says what runs."""
    router = APIRouter(tags=["operations"])

    @router.get("/version")
    async def version() -> dict[str, str]:
        """The version of the package and the engine's name."""
        return {"version": package_version(), "engine": engine}

    return router
