"""A real `nps serve` process and a client for it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Client:
    """Speaks to a running service."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=120)

    def models(self) -> list[str]:
        """Ids of the base and all tasks."""
        return [model["id"] for model in self._get("/v1/models")["data"]]

    def classify(self, model: str, texts: Sequence[str]) -> list[str]:
        """The most likely label of each text."""
        answer = self._http.post("/classify", json={"model": model, "input": list(texts)})
        answer.raise_for_status()
        return [item["label"] for item in answer.json()["data"]]

    def wait_for(self, model: str, *, timeout_s: float = 30) -> None:
        """Wait until the service has picked a new task up.

        Raises:
            TimeoutError: It does not appear.
        """
        end = time.monotonic() + timeout_s
        while model not in self.models():
            if time.monotonic() > end:
                raise TimeoutError(f"the service does not list {model!r} after {timeout_s} s")
            time.sleep(0.1)

    def switches(self) -> tuple[int, float]:
        """Number of switches so far, and their mean duration in seconds."""
        text = self._http.get("/metrics").text
        count, total = (
            float(re.findall(rf"^nps_swap_seconds_{part}(?:{{.*}})? (\S+)$", text, re.M)[0])
            for part in ("count", "sum")
        )
        return int(count), total / max(count, 1)

    def _get(self, path: str) -> dict[str, list[dict[str, str]]]:
        answer = self._http.get(path)
        answer.raise_for_status()
        content: dict[str, list[dict[str, str]]] = answer.json()
        return content


@contextmanager
def serve(store: Path, base: Path) -> Iterator[Client]:
    """Start `nps serve` on a free port; stop it at the end."""
    command = [str(Path(sys.executable).parent / "nps"), "serve", str(store), "--base", str(base)]
    log = store.with_suffix(".log").open("w")
    process = subprocess.Popen(
        [*command, "--port", "0", "--json"], stdout=subprocess.PIPE, stderr=log, text=True
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise RuntimeError(f"nps serve did not start: {Path(log.name).read_text()}")
        yield Client(json.loads(line)["url"])
    finally:
        process.terminate()
        process.wait(timeout=60)
        if process.stdout:
            process.stdout.close()
        log.close()
