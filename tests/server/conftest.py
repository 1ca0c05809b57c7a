"""Applications over the toy engine, and a wait that fails loudly."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from server.app import create_app
from server.settings import Settings
from tests.server.toy import ToyEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("the condition did not become true in time")
        time.sleep(0.005)


@contextlib.contextmanager
def serving(engine: object, **settings: object) -> Iterator[TestClient]:
    """A client of a ready application."""
    app = create_app(Settings(**{"refresh_s": 0.02, **settings}), engine)
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/ready").status_code == 200)
        yield client


@pytest.fixture
def toy() -> ToyEngine:
    return ToyEngine.with_tasks(section=3, role=2, plain=0)


def assert_error(
    response: httpx.Response, status: int, code: str, *, param: str | None = None
) -> str:
    """The one shape of every error; returns the message."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert isinstance(error["message"], str)
    assert error["message"]
    assert error["type"].endswith("_error")
    return error["message"]


def metric(client: TestClient, line: str) -> float:
    """Value of the sample that `line` names, labels included; 0 where there is none yet."""
    for found in client.get("/metrics").text.splitlines():
        if found.startswith(line + " "):
            return float(found.rsplit(" ", 1)[1])
    return 0.0
