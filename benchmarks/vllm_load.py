"""Requests of several tasks, put through a vLLM engine as they arrive, and what they saw."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.distribution import distribution
from benchmarks.load.plan import popularity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vllm import LLM
    from vllm.lora.request import LoRARequest

    Route = Callable[[int], LoRARequest | None]

VOCABULARY = 2000
"""Prompts are of the first so many tokens, which every model has."""


@dataclass
class Asked:
    """One request.

    Attributes:
        at_s: When it arrives, from the start.
        queue_s: Until its first step, as vLLM tells.
        first_s: Until its first token was here; `end_s` until its last.
    """

    number: int
    task: int
    prompt: list[int]
    n_tokens: int
    at_s: float
    queue_s: float = 0.0
    first_s: float = 0.0
    end_s: float = 0.0
    n_seen: int = field(default=0, repr=False)


def zipf_mix(
    n: int, *, n_tasks: int, longest: int, rate: float | None, seed: int = 0
) -> list[Asked]:
    """Requests by Zipf's law over tasks; lengths of answers log-uniform from 16 to `longest`.

    Args:
        n: Requests.
        n_tasks: Tasks; the first is the most popular.
        longest: Tokens.
        rate: Arrivals a second, at random; None: all at once.
        seed: Of everything.
    """
    rng = np.random.default_rng(seed)
    tasks = rng.choice(n_tasks, n, p=popularity("zipf", n_tasks))
    lengths = np.exp(rng.uniform(np.log(16), np.log(longest), n)).round().astype(int)
    gaps = np.zeros(n) if rate is None else rng.exponential(1 / rate, n)
    return [
        Asked(number, int(tasks[number]), rng.integers(3, VOCABULARY, size).tolist(),
              int(lengths[number]), float(arrival))
        for number, (arrival, size) in enumerate(zip(np.cumsum(gaps), rng.integers(16, 128, n),
                                                     strict=True))
    ]  # fmt: skip


def run(
    llm: LLM, asked: Sequence[Asked], route: Route, *, seconds: float | None = None
) -> dict[str, Any]:
    """Put all requests through, or as much of them as is done after some seconds; returns what was
    seen."""
    engine, began = llm.llm_engine, time.perf_counter()
    due, waits, steps, since = deque(asked), [], [], {}
    by_id = {str(each.number): each for each in asked}
    at_work: dict[int, int] = {}
    served_before: set[int] = set()
    while due or engine.has_unfinished_requests():
        now = time.perf_counter() - began
        if seconds is not None and now > seconds:
            break
        while due and due[0].at_s <= now:
            each = due.popleft()
            _add(engine, each, route)
            at_work[each.task] = at_work.get(each.task, 0) + 1
            since.setdefault(each.task, now)
        if not engine.has_unfinished_requests():
            time.sleep(max(0.0, due[0].at_s - now))
            continue
        outputs, before = engine.step(), now
        now = time.perf_counter() - began
        steps.append(now - before)
        served = {by_id[output.request_id].task for output in outputs}
        if served:
            waits += [now - since[task] for task in served - served_before]
            served_before = served
            since |= dict.fromkeys(served, now)
        for output in outputs:
            each = by_id[output.request_id]
            _note(each, output, now)
            if output.finished:
                at_work[each.task] -= 1
                if not at_work[each.task]:
                    del since[each.task], at_work[each.task]
    taken_s = time.perf_counter() - began
    engine.abort_request(list(by_id))
    return summary(asked, taken_s, waits, steps)


def summary(
    asked: Sequence[Asked],
    seconds: float,
    waits: Sequence[float] = (),
    steps: Sequence[float] = (),
) -> dict[str, Any]:
    """Throughput and waits, of requests whose first token was seen.

    Args:
        asked: All requests.
        seconds: That all took.
        waits: Of tasks that have work, for their next turn.
        steps: Seconds of each step, as a client sees it.
    """
    n_asked, asked = len(asked), [each for each in asked if each.n_seen]
    n_tokens = sum(each.n_seen for each in asked)
    tasks = sorted({each.task for each in asked})
    return {
        "n_requests": n_asked,
        "n_begun": len(asked),
        "n_finished": sum(each.end_s > 0 for each in asked),
        "n_tokens": n_tokens,
        "seconds": seconds,
        "tokens_per_s": n_tokens / seconds,
        "queue_s": distribution(each.queue_s for each in asked),
        "first_token_s": distribution(each.first_s - each.at_s for each in asked),
        "first_token_s_by_task": {
            str(task): distribution(e.first_s - e.at_s for e in asked if e.task == task)
            for task in tasks
        },
        "task_wait_s": distribution(waits),
        "step_s": distribution(steps),
    }


def _add(engine: Any, each: Asked, route: Route) -> None:  # noqa: ANN401
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    params = SamplingParams(
        temperature=0.0, max_tokens=each.n_tokens, ignore_eos=True, detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )  # fmt: skip
    prompt = {"prompt_token_ids": each.prompt}
    engine.add_request(str(each.number), prompt, params, lora_request=route(each.task))


def _note(each: Asked, output: Any, now: float) -> None:  # noqa: ANN401
    each.n_seen += len(output.outputs[0].token_ids)
    each.first_s = each.first_s or now
    if output.metrics is not None and output.metrics.scheduled_ts:
        each.queue_s = output.metrics.scheduled_ts - output.metrics.queued_ts
    if output.finished:
        each.end_s = now
