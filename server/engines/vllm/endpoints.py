"""Routes beside vLLM's own, in each of its API server processes (entry point
`vllm.endpoint_plugins`), and what keeps the tasks behind them up to date."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from formats.errors import NpsError
from nps_store.store import Store
from server import logs
from server.app import NO_ADMIN_KEY
from server.engines.vllm.metrics import Metrics, exposition
from server.engines.vllm.observed_engine import ObservedEngine
from server.engines.vllm.options import Options
from server.engines.vllm.served_tasks import ServedTasks
from server.errors import NotReadyError
from server.http.errors import error_response, http_exception_response, nps_error_response
from server.http.keys import require_key
from server.protocol.admin import Refreshed, TaskState, TaskStates
from server.settings import Settings

if TYPE_CHECKING:
    from argparse import Namespace

    from starlette.datastructures import State
    from vllm.engine.protocol import EngineClient

    from server.engines.vllm.contents import TaskContent

logger = logging.getLogger(__name__)


class TaskEndpoints:
    """What vLLM calls an endpoint plugin.

    Attributes:
        name: What it is allowed by, in `VLLM_PLUGINS`.
        required_tasks: Only servers that generate get it.
    """

    name = "nps_routes"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_exception_handler(NpsError, _answer)
        app.add_exception_handler(HTTPException, _answer)  # vLLM answers FastAPI's own alone
        app.add_api_route("/ready", _ready)
        app.add_api_route("/metrics", _metrics)
        operator = [Depends(require_key(Settings().admin_key, absent=NO_ADMIN_KEY))]
        app.add_api_route("/admin/tasks", _list, dependencies=operator)
        app.add_api_route("/admin/refresh", _refresh, methods=["POST"], dependencies=operator)
        for verb, route in {"add": _add, "remove": _remove, "pin": _pin, "unpin": _unpin}.items():
            path = f"/admin/tasks/{{task:path}}/{verb}"
            app.add_api_route(path, route, methods=["POST"], dependencies=operator)

    async def init_state(
        self, engine_client: EngineClient | None, state: State, args: Namespace
    ) -> None:
        """Offer the tasks of the store, and follow it from now on."""
        del args  # all that is needed went through the engine's configuration
        if engine_client is None:
            return
        options = Options.of(engine_client.vllm_config)
        logs.configure(sys.stderr)
        store = await asyncio.to_thread(Store.open, options.store, base=options.base)
        tasks = ServedTasks(engine_client, store, state.openai_serving_models.lora_requests)
        await tasks.sync()
        engine_client.generate = ObservedEngine(engine_client, tasks, Metrics()).generate  # type: ignore[method-assign]
        state.nps_tasks, state.nps_options = tasks, options
        state.nps_follower = asyncio.create_task(_follow(tasks, Settings().refresh_s))


async def _follow(tasks: ServedTasks, seconds: float) -> None:
    """Look at the store for ever."""
    complaint = ""
    while True:
        await asyncio.sleep(seconds)
        try:
            if await tasks.sync():
                logger.info("store generation %d", tasks.store.generation)
            complaint = ""
        except Exception as error:  # what is offered can still be served
            if repr(error) != complaint:  # once, not twice a second
                logger.exception("looking for a newer store generation failed")
            complaint = repr(error)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, NpsError):
        return nps_error_response(error)
    if isinstance(error, HTTPException):
        return http_exception_response(request, error)[1]
    raise error


async def _ready(request: Request) -> JSONResponse:
    """Answer 200 when the engine lives and the tasks are known, else 503."""
    engine: EngineClient = request.app.state.engine_client
    if not engine.errored:
        return JSONResponse({"ready": True})
    reasons = ["the engine has died; start the server again"]
    return error_response(
        503, f"not ready: {reasons[0]}", code=NotReadyError.id, ready=False, reasons=reasons
    )


async def _metrics(request: Request) -> Response:
    """Answer vLLM's metrics and this engine's, in Prometheus' text format."""
    from vllm.v1.metrics.prometheus import get_prometheus_registry

    switches = await _tasks(request).workers.statistics()
    page = exposition(get_prometheus_registry(), switches)
    return Response(page, media_type=CONTENT_TYPE_LATEST)


async def _list(request: Request) -> TaskStates:
    """List every content of every task with its state; requests in flight are this process's."""
    tasks = _tasks(request)
    await tasks.sync()
    rows = [_state(tasks, content) for content in (*tasks.offered, *tasks.draining)]
    rows += [TaskState(task=name, state="withdrawn") for name in tasks.withdrawn]
    return TaskStates(
        generation=tasks.store.generation,
        memory_budget=request.app.state.nps_options.max_nbytes,
        memory_used=sum(row.nbytes for row in rows),
        data=rows,
    )


async def _refresh(request: Request) -> Refreshed:
    """Look for a newer generation of the store now."""
    tasks = _tasks(request)
    changed = await tasks.sync()
    return Refreshed(changed=changed, generation=tasks.store.generation)


async def _add(request: Request, task: str) -> TaskState:
    """Serve a task that was added to the store, was withdrawn, or failed."""
    return _state(_tasks(request), (await _tasks(request).add(task)).content)


async def _remove(request: Request, task: str) -> TaskState:
    """Serve a task no more; it stays in the store, and its requests in flight finish."""
    await _tasks(request).remove(task)
    return TaskState(task=task, state="withdrawn")


async def _pin(request: Request, task: str) -> TaskState:
    """Keep a task in memory."""
    return _state(_tasks(request), (await _tasks(request).pin(task, is_pinned=True)).content)


async def _unpin(request: Request, task: str) -> TaskState:
    """Let the memory budget evict a task again."""
    return _state(_tasks(request), (await _tasks(request).pin(task, is_pinned=False)).content)


def _tasks(request: Request) -> ServedTasks:
    tasks: ServedTasks = request.app.state.nps_tasks
    return tasks


def _state(tasks: ServedTasks, content: TaskContent) -> TaskState:
    state = tasks.state(content)
    return TaskState(
        task=content.name,
        state="draining" if content in tasks.draining else state.state,
        content_hash=content.content_hash,
        nbytes=state.nbytes,
        form="patch" if state.nbytes else None,
        pinned=state.is_pinned,
        in_flight=tasks.n_in_flight[content],
        reason=None if state.error is None else str(state.error),
    )
