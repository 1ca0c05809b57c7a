"""Sends planned requests at their times, whatever became of those before."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from benchmarks.load.routes import ROUTES, event_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.load.plan import Planned

CONNECTIONS = 512


@dataclass
class Seen:
    """What became of a request; seconds count from its planned arrival.

    Attributes:
        planned: The request.
        lag_s: How late it was sent: the load generator's own delay.
        outcome: HTTP status, or what kept it from getting one.
        end_s: Until the whole answer was here.
        first_s: Until the first token, where the answer streams.
        n_tokens: Of the answer, as the server counts them.
    """

    planned: Planned
    lag_s: float = 0.0
    outcome: str = ""
    end_s: float = 0.0
    first_s: float | None = None
    n_tokens: int = 0


class Sender:
    """Asks one route of one server."""

    def __init__(
        self, url: str, route: str, *, max_tokens: int, timeout_s: float, api_key: str | None
    ) -> None:
        self._route = route
        self._max_tokens = max_tokens
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=CONNECTIONS),
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
        )

    async def models(self) -> list[str]:
        """Ids of the tasks, which name a parent; of all models where none does.

        Raises:
            httpx.HTTPError: The server does not answer.
        """
        answer = await self._client.get("/v1/models")
        answer.raise_for_status()
        models = answer.json()["data"]
        tasks = [model["id"] for model in models if model.get("parent")]
        return tasks or [model["id"] for model in models]

    async def run(self, requests: Sequence[Planned]) -> list[Seen]:
        """Send all; returns when all are answered."""
        start = time.perf_counter()
        at_work = []
        for planned in requests:
            await asyncio.sleep(max(0.0, start + planned.at_s - time.perf_counter()))
            at_work.append(asyncio.create_task(self.ask(planned, start)))
        return await asyncio.gather(*at_work)

    async def ask(self, planned: Planned, start: float) -> Seen:
        """Send one and wait for its answer; an error is an outcome."""
        due = start + planned.at_s
        seen = Seen(planned, lag_s=time.perf_counter() - due)
        body = ROUTES[self._route](planned.model, planned.text, self._max_tokens)
        try:
            async with self._client.stream("POST", self._route, json=body) as answer:
                seen.outcome = str(answer.status_code)
                async for line in answer.aiter_lines():
                    self._note(seen, line, time.perf_counter() - due)
        except httpx.TimeoutException:
            seen.outcome = "timeout"
        except httpx.HTTPError as error:
            seen.outcome = type(error).__name__
        seen.end_s = time.perf_counter() - due
        return seen

    def _note(self, seen: Seen, line: str, now: float) -> None:
        event = event_of(line)
        if event is None:
            return
        if event.get("choices") and seen.first_s is None:
            seen.first_s = now
        if event.get("usage"):
            seen.n_tokens = event["usage"]["completion_tokens"]
        if event.get("error"):
            seen.outcome = "error in stream"

    async def close(self) -> None:
        """Hang up."""
        await self._client.aclose()
