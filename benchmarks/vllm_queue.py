"""More requests at one time than a server can hold: what each gets, and what the engine is after.

    python -m benchmarks.vllm_queue

A server of the smallest model (`nps serve --engine vllm`), and a connection for every request, all
open until they are answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer

from benchmarks.distribution import distribution
from benchmarks.machine import circumstances, write_result
from benchmarks.vllm_ways import SIZES, make_files
from server.engines.vllm.version import check_vllm

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT = 8377
START_S, ANSWER_S = 180, 540
CONNECTING = 256
"""At one time: more than a listening socket keeps would be refused by the system."""
TASKS, KEEP = 8, 0.005


def main(
    requests: Annotated[int, typer.Option(help="Requests, all at once.")] = 10_000,
    limit: Annotated[int, typer.Option(help="Requests that may wait; 0: any number.")] = 0,
    n_tokens: Annotated[int, typer.Option(help="Tokens of an answer.")] = 8,
    device: Annotated[str, typer.Option(help="cpu or cuda; what vLLM is built for.")] = "cpu",
    work: Annotated[Path, typer.Option(help="Where the model is.")] = Path("vllm-work"),
    out: Annotated[Path | None, typer.Option(help="Where to write the result.")] = None,
) -> None:
    """Ask, count the answers, and ask again."""
    folder = work / f"tiny-{TASKS}-{KEEP:g}"
    make_files(folder, SIZES["tiny"], n_tasks=TASKS, keep=KEEP, device=device)
    with _server(folder, device, limit) as url:
        before = [_tokens(url, task) for task in range(TASKS)]
        began = time.perf_counter()
        answers = asyncio.run(_all(requests, n_tokens))
        seconds = time.perf_counter() - began
        after = [_tokens(url, task) for task in range(TASKS)]
        is_ready = httpx.get(f"{url}/ready").status_code == 200
    result = {
        "schema": "nps.bench-vllm-queue/1",
        "command": f"python -m benchmarks.vllm_queue {' '.join(sys.argv[1:])}".strip(),
        **circumstances(device),
        "vllm": check_vllm(), "requests": requests, "limit": limit, "tokens": n_tokens,
        "seconds": seconds,
        "answers": dict(Counter(status for status, _ in answers)),
        "answered_s": distribution(at_s for status, at_s in answers if status == "200"),
        "ready_after": is_ready, "same_tokens_after": before == after,
    }  # fmt: skip
    if out is not None:
        write_result(out, result)
    print(json.dumps(result, indent=1))


@contextmanager
def _server(folder: Path, device: str, limit: int) -> Iterator[str]:
    """Yields its address when it is ready."""
    own = ["--max-model-len", "2048", "--skip-tokenizer-init", "--max-num-seqs", "256",
           "--seed", "0", "--disable-uvicorn-access-log"]  # fmt: skip
    own += ["--max-num-queued-reqs", str(limit)] if limit else []
    own += ["--kv-cache-memory-bytes", str(1 << 30), "--enforce-eager"] if device == "cpu" else []
    code = "from nps_store.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", str(folder / "tasks.nps"), "--engine",
               "vllm", "--base", str(folder / "base"), "--port", str(PORT), "--", *own]  # fmt: skip
    log = folder / "serve.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)  # noqa: S603
    url = f"http://127.0.0.1:{PORT}"
    try:
        deadline = time.monotonic() + START_S
        while not _is_ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False


def _tokens(url: str, task: int) -> list[int]:
    answer = httpx.post(f"{url}/v1/completions", json=_asked(task, 16), timeout=60)
    answer.raise_for_status()
    tokens: list[int] = answer.json()["choices"][0]["token_ids"]
    return tokens


def _asked(task: int, n_tokens: int) -> dict[str, Any]:
    prompt = [3 + (7 * i + task) % 1000 for i in range(16)]
    return {"model": f"task{task}", "prompt": prompt, "max_tokens": n_tokens, "temperature": 0,
            "ignore_eos": True, "return_token_ids": True}  # fmt: skip


async def _all(n: int, n_tokens: int) -> list[tuple[str, float]]:
    """Status (or what went wrong) and seconds of each."""
    wanted = n + 1024
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, hard)), hard))
    connecting = asyncio.Semaphore(CONNECTING)
    return await asyncio.gather(*(_ask(i % TASKS, n_tokens, connecting) for i in range(n)))


async def _ask(task: int, n_tokens: int, connecting: asyncio.Semaphore) -> tuple[str, float]:
    body = json.dumps(_asked(task, n_tokens)).encode()
    head = (f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n")  # fmt: skip
    began = time.perf_counter()
    try:
        async with asyncio.timeout(ANSWER_S):
            async with connecting:
                reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
                writer.write(head.encode() + body)
                await writer.drain()
            answer = await reader.read()
            writer.close()
    except (OSError, TimeoutError) as error:
        return type(error).__name__, time.perf_counter() - began
    status = answer.split(b" ", 2)[1].decode() if answer else "closed without an answer"
    return status, time.perf_counter() - began


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    typer.run(main)
