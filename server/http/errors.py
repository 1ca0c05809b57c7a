"""The one table from error class to HTTP status, and the one shape of every error (OpenAI's)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from formats.errors import NpsError
from formats.errors import TaskNotFoundError as ContainerTaskNotFoundError
from nps_store.errors import TaskNotFoundError, UnsupportedTaskError
from server.errors import (
    BadRequestError,
    EngineFailedError,
    ModelNotFoundError,
    NotReadyError,
    OverloadedError,
    ResidencyConflictError,
    TaskQuarantinedError,
    WrongRouteError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI, Request


@dataclass(frozen=True, slots=True)
class Appearance:
    """How an error looks: its status, OpenAI's `type`, and `code` (None: the class's own id)."""

    status: int
    type: str
    code: str | None = None


APPEARANCES: Mapping[type[NpsError], Appearance] = {
    NpsError: Appearance(500, "server_error"),
    BadRequestError: Appearance(400, "invalid_request_error"),
    WrongRouteError: Appearance(400, "invalid_request_error"),
    ModelNotFoundError: Appearance(404, "not_found_error", "model_not_found"),
    TaskNotFoundError: Appearance(404, "not_found_error", "model_not_found"),
    ContainerTaskNotFoundError: Appearance(404, "not_found_error", "model_not_found"),
    UnsupportedTaskError: Appearance(409, "invalid_request_error"),
    ResidencyConflictError: Appearance(409, "invalid_request_error"),
    OverloadedError: Appearance(429, "rate_limit_error"),
    NotReadyError: Appearance(503, "server_error"),
    TaskQuarantinedError: Appearance(500, "server_error"),
    EngineFailedError: Appearance(500, "server_error"),
}

_TYPE_OF_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def appearance(error: NpsError) -> Appearance:
    """The row of the nearest class in the table."""
    return next(
        APPEARANCES[cls]
        for cls in type(error).__mro__
        if cls in APPEARANCES  # NpsError is in it, so there always is one
    )


def error_response(
    status: int,
    message: str,
    *,
    type: str | None = None,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    **more: object,
) -> JSONResponse:
    """A response in OpenAI's error shape; `more` are fields beside `error`."""
    fallback = "server_error" if status >= 500 else "invalid_request_error"
    error = {
        "message": message,
        "type": type or _TYPE_OF_STATUS.get(status, fallback),
        "param": param,
        "code": code,
    }
    return JSONResponse({"error": error, **more}, status, headers=dict(headers or {}))


async def answer_nps_error(request: Request, error: Exception) -> JSONResponse:
    """Answer an error of the product's tree."""
    if not isinstance(error, NpsError):
        raise error
    request.state.trace.error = error.id
    return nps_error_response(error)


def nps_error_response(error: NpsError) -> JSONResponse:
    """The response that tells of an error of the product's tree."""
    shape = appearance(error)
    retry_after_s = getattr(error, "retry_after_s", None)
    return error_response(
        shape.status,
        str(error),
        type=shape.type,
        param=getattr(error, "param", None),
        code=shape.code or error.id,
        headers={"Retry-After": str(math.ceil(retry_after_s))} if retry_after_s else None,
    )


async def answer_invalid_body(request: Request, error: Exception) -> JSONResponse:
    """Answer a body that is no JSON (400) or has wrong fields (422), naming the first of them."""
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"][1:]) or None
    if first["type"] == "json_invalid":
        status, code, param = 400, "invalid_json", None
        message = f"the body is not valid JSON: {first['ctx']['error']}"
    elif param is None:
        status, code = 422, "invalid_body"
        message = "the body must be a JSON object sent as application/json"
    else:
        status, code = 422, "invalid_body"
        message = f"{param}: {first['msg']}"
    request.state.trace.error = code
    return error_response(status, message, param=param, code=code)


async def answer_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Answer what the framework refuses: unknown routes, methods, keys and sizes."""
    if not isinstance(error, HTTPException):
        raise error
    code, response = http_exception_response(request, error)
    request.state.trace.error = code
    return response


def http_exception_response(request: Request, error: HTTPException) -> tuple[str, JSONResponse]:
    """The code and the response of what the framework refuses."""
    message = error.detail
    if error.status_code == 404 and message == "Not Found":
        message = f"no such route: {request.url.path}"
    if error.status_code == 405:
        message = f"{request.method} is not allowed on {request.url.path}"
    code = {401: "invalid_api_key", 403: "admin_forbidden", 413: "body_too_large"}.get(
        error.status_code, f"http_{error.status_code}"
    )
    return code, error_response(error.status_code, message, code=code, headers=error.headers)


def install(app: FastAPI) -> None:
    """Make every error of `app` answer in the one shape; unexpected ones are the request log's."""
    app.add_exception_handler(NpsError, answer_nps_error)
    app.add_exception_handler(RequestValidationError, answer_invalid_body)
    app.add_exception_handler(HTTPException, answer_http_exception)
