"""vLLM's own schedulers, made to show one task at a time, drive a runner that only counts."""

from __future__ import annotations

from collections import deque
from importlib.util import find_spec
from itertools import groupby

import numpy as np
import pytest

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.filterwarnings("ignore"),  # of vLLM's own, when it is imported
]

BLOCK, SEQUENCES, LENGTH = 32, 6, 256
QUANTUM_S, STEP_S = 0.2, 0.03
AMPLE, SCARCE = 4096, 20
"""Blocks of cache: for all requests, and for two long ones."""


@pytest.fixture(scope="module")
def config(zoo_of):
    from vllm.engine.arg_utils import EngineArgs

    from server.engines.vllm.options import Options
    from server.engines.vllm.plugin import register
    from server.engines.vllm.start import engine_arguments

    register()
    arguments = engine_arguments(Options("unused"))
    size = {
        "block_size": BLOCK, "max_num_seqs": SEQUENCES, "max_model_len": LENGTH,
        "kv_cache_memory_bytes": 1 << 20, "dtype": "float32", "enforce_eager": True,
    }  # fmt: skip
    return EngineArgs(str(zoo_of("llama").base), **arguments, **size).create_engine_config()


class Engine:
    """What vLLM's engine does with a scheduler and a runner, `depth` steps ahead."""

    def __init__(self, config, *, is_async, has_slots, n_blocks):
        import torch
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.kv_cache_interface import (
            FullAttentionSpec,
            KVCacheConfig,
            KVCacheGroupSpec,
        )
        from vllm.v1.structured_output import StructuredOutputManager

        from server.engines.vllm.scheduler import OneTaskAsyncScheduler, OneTaskScheduler
        from server.engines.vllm.time_slices import TimeSlices

        config.cache_config.num_gpu_blocks = n_blocks
        init_none_hash(sha256)
        self.hasher = get_request_block_hasher(BLOCK, sha256)
        spec = FullAttentionSpec(BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
        cache = KVCacheConfig(n_blocks, [], [KVCacheGroupSpec(["layer"], spec)])
        kind = OneTaskAsyncScheduler if is_async else OneTaskScheduler
        self.scheduler = kind(config, cache, StructuredOutputManager(config), BLOCK, BLOCK)
        self.scheduler.use_v2_model_runner = has_slots
        self.now = 0.0
        self.scheduler._turns = TimeSlices(QUANTUM_S, lambda: self.now)
        self.runner = Runner(self.scheduler, has_slots=has_slots)
        self.depth = 2 if is_async else 1
        self.said: dict[str, list[int]] = {}
        self.ended: dict[str, str] = {}
        self.turns: list[tuple[float, set, set]] = []

    def add(self, name, task, n_prompt, n_tokens):
        from vllm import SamplingParams
        from vllm.v1.request import Request

        from server.engines.vllm.contents import TaskContent
        from server.engines.vllm.routing import route_to

        params = SamplingParams(max_tokens=n_tokens, ignore_eos=True)
        params.update_from_generation_config({}, None)
        route = None if task is None else route_to(TaskContent(task, "hash"))
        prompt = list(range(n_prompt))
        self.scheduler.add_request(
            Request(name, prompt, params, None, lora_request=route, block_hasher=self.hasher)
        )
        self.said[name] = []

    def run(self, *, fails=lambda task: False, at_step=lambda number: None):
        """Until all requests are over."""
        from server.engines.vllm.failed_step import FailedStep

        queue = deque()
        for number in range(5000):
            at_step(number)
            if self.scheduler.has_requests():
                step = self.scheduler.schedule()
                task = self.runner.task_of(step)
                output = FailedStep([], {}, failed=task) if fails(task) else self.runner.run(step)
                self.note_turn(step)
                queue.append((step, output))
                self.now += STEP_S
                if len(queue) < self.depth and step.total_num_scheduled_tokens:
                    continue
            if not queue:
                return
            self.take(self.scheduler.update_from_output(*queue.popleft()))
        pytest.fail("requests never end")

    def take(self, outputs):
        for of_client in outputs.values():
            for output in of_client.outputs:
                self.said[output.request_id] += output.new_token_ids
                if output.finish_reason is not None:
                    self.ended[output.request_id] = str(output.finish_reason)

    def note_turn(self, step):
        from server.engines.vllm.routing import task_of

        requests = self.scheduler.requests
        at_work = {task_of(request) for request in requests.values()}
        served = {task_of(requests[name]) for name in step.num_scheduled_tokens}
        self.turns.append((self.now, served, at_work))


class Runner:
    """Counts tokens as a model runner does; a token says which one of its request it is."""

    def __init__(self, scheduler, *, has_slots):
        self.scheduler, self.has_slots = scheduler, has_slots
        self.known: dict[str, int] = {}
        self.routes: dict[str, object] = {}

    def task_of(self, step):
        """One, whatever the step."""
        from server.engines.vllm.routing import target_of

        self.routes |= {new.req_id: target_of(new.lora_request) for new in step.scheduled_new_reqs}
        tasks = {self.routes[name] for name in step.num_scheduled_tokens}
        assert len(tasks) <= 1
        return tasks.pop() if tasks else None

    def run(self, step):
        from vllm.v1.outputs import ModelRunnerOutput

        for name in {*step.finished_req_ids, *(step.preempted_req_ids or ())}:
            self.known.pop(name, None)
        computed = {}
        for new in step.scheduled_new_reqs:
            self.known[new.req_id] = len(self.scheduler.requests[new.req_id]._all_token_ids)
            computed[new.req_id] = new.num_computed_tokens
        cached = step.scheduled_cached_reqs
        for name, n_computed in zip(cached.req_ids, cached.num_computed_tokens, strict=True):
            if name in cached.resumed_req_ids:
                self.known[name] = len(self.scheduler.requests[name]._all_token_ids)
            computed[name] = n_computed
        if self.has_slots:
            assert len(self.known) <= SEQUENCES
        names = list(step.num_scheduled_tokens)
        sampled = [self.sample(n, computed[n] + step.num_scheduled_tokens[n]) for n in names]
        return ModelRunnerOutput(names, {name: i for i, name in enumerate(names)}, sampled)

    def sample(self, name, n_computed):
        if n_computed < self.known[name]:
            return []
        assert n_computed == self.known[name]
        self.known[name] += 1
        return [self.known[name] - self.scheduler.requests[name].num_prompt_tokens]


def requests(seed, n=40):
    rng = np.random.default_rng(seed)
    for number in range(n):
        task = [None, "a", "b", "c"][rng.integers(4)]
        yield f"{number}", task, int(rng.integers(1, 60)), int(rng.integers(1, 180))


KINDS = pytest.mark.parametrize("is_async", [False, True], ids=["waiting", "ahead"])
RUNNERS = pytest.mark.parametrize("has_slots", [False, True], ids=["v1", "v2"])


@KINDS
@RUNNERS
@pytest.mark.parametrize("n_blocks", [AMPLE, SCARCE])
@pytest.mark.parametrize("seed", range(3))
def test_every_step_is_of_one_task_and_every_request_is_answered(
    config, is_async, has_slots, n_blocks, seed
):
    engine = Engine(config, is_async=is_async, has_slots=has_slots, n_blocks=n_blocks)
    asked = list(requests(seed))
    for each in asked:
        engine.add(*each)
    engine.run()
    for name, _, _, n_tokens in asked:
        assert engine.said[name] == list(range(1, n_tokens + 1))
    assert set(engine.ended.values()) == {"length"}


@KINDS
def test_no_task_waits_longer_than_the_others_turns(config, is_async):
    engine = Engine(config, is_async=is_async, has_slots=False, n_blocks=AMPLE)
    for each in requests(7, n=60):
        engine.add(*each)
    engine.run()
    since = {}
    for now, served, at_work in engine.turns:
        since = {task: since.get(task, now) for task in at_work - served}
        for began in since.values():
            assert now - began <= 3 * QUANTUM_S + STEP_S + 1e-9


def test_turns_are_as_long_as_batches_are_full(config):
    engine = Engine(config, is_async=False, has_slots=False, n_blocks=AMPLE)
    for number in range(SEQUENCES):
        engine.add(f"a{number}", "a", 4, 60)
    for number in range(SEQUENCES // 2):
        engine.add(f"b{number}", "b", 4, 60)
    engine.run()
    turns = [len(list(steps)) for _, steps in groupby(served for _, served, _ in engine.turns)]
    assert turns[:6] == [6, 3] * 3  # 0.18 s of a quantum of 0.2 s, 0.09 s of half of one


@KINDS
@RUNNERS
def test_a_task_that_fails_ends_its_own_requests_alone(config, is_async, has_slots):
    from server.engines.vllm.contents import TaskContent

    engine = Engine(config, is_async=is_async, has_slots=has_slots, n_blocks=AMPLE)
    asked = list(requests(3))
    for each in asked:
        engine.add(*each)
    engine.run(fails=lambda task: task == TaskContent("b", "hash") and engine.now > 0.5)
    for name, task, _, n_tokens in asked:
        is_whole = engine.said[name] == list(range(1, n_tokens + 1))
        assert engine.ended[name] == ("length" if is_whole else "error")
        assert is_whole or task == "b"
    assert "error" in engine.ended.values()


@KINDS
def test_clients_that_leave_do_not_disturb_the_others(config, is_async):
    from vllm.v1.request import RequestStatus

    engine = Engine(config, is_async=is_async, has_slots=False, n_blocks=SCARCE)
    asked = list(requests(4))
    left = {name for name, *_ in asked[::3]}

    def at_step(number):
        if number == 20:
            engine.scheduler.finish_requests(left, RequestStatus.FINISHED_ABORTED)

    for each in asked:
        engine.add(*each)
    engine.run(at_step=at_step)
    for name, _, _, n_tokens in asked:
        assert name in left or engine.said[name] == list(range(1, n_tokens + 1))


def test_the_queue_of_ten_thousand_costs_a_step_no_more(config):
    """Requests of other tasks are not looked at one by one."""
    import time

    def seconds(n):
        engine = Engine(config, is_async=False, has_slots=False, n_blocks=AMPLE)
        for number in range(n):
            engine.add(f"{number}", "abc"[number % 3], 4, 50)
        began = time.perf_counter()
        for _ in range(30):
            step = engine.scheduler.schedule()
            engine.scheduler.update_from_output(step, engine.runner.run(step))
        return time.perf_counter() - began

    few = min(seconds(100) for _ in range(3))
    assert seconds(10_000) < 5 * few
