"""Building the application. Running it is another step (`run.py`), so other hosts can do theirs."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI
from starlette.middleware import Middleware

from server.http import errors
from server.http.body_limit import BodyLimit
from server.http.keys import require_key
from server.http.request_log import RequestLog
from server.metrics import Metrics, package_version
from server.routes.admin import admin_routes
from server.routes.classify import classify_routes
from server.routes.embeddings import embedding_routes
from server.routes.health import health_routes
from server.routes.metrics import metrics_routes
from server.routes.models import model_routes
from server.routes.version import version_routes
from server.service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from server.engines import Engine
    from server.settings import Settings

NO_ADMIN_KEY = (
    "the admin routes are off: start the server with --admin-key or NPS_ADMIN_KEY to use them"
)


def create_app(settings: Settings, engine: Engine) -> FastAPI:
    """The application over an engine that is not opened yet.

    Its lifespan opens the engine in the background, so `/health` answers at once and `/ready` when
    the base is loaded; leaving the lifespan closes the engine. The service is `app.state.service`.
    """
    metrics = Metrics(engine=engine.name)
    service = Service(settings, engine=engine, metrics=metrics)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="NPS Store",
        version=package_version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(RequestLog, metrics=metrics),
            Middleware(BodyLimit, max_nbytes=settings.max_body_nbytes),
        ],
    )
    app.state.service = service
    errors.install(app)
    client = [Depends(require_key(settings.api_key))]
    operator = [Depends(require_key(settings.admin_key, absent=NO_ADMIN_KEY))]
    app.include_router(health_routes(service))
    app.include_router(classify_routes(service), dependencies=client)
    app.include_router(embedding_routes(service), dependencies=client)
    app.include_router(model_routes(service, started_at=int(time.time())), dependencies=client)
    app.include_router(metrics_routes(metrics), dependencies=client)
    app.include_router(version_routes(engine=engine.name), dependencies=client)
    app.include_router(admin_routes(service), dependencies=operator)
    return app
