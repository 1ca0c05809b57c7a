"""Real vLLM, switched in place, says what stock vLLM says with the task's exported checkpoint."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from tests.server.engines.vllm.models import ADAPTER, KINDS, TASKS
from tests.server.engines.vllm.running import ask
from tests.server.engines.vllm.scenario import NAMES, SWITCHES, mix

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]


@pytest.fixture(scope="module", params=KINDS)
def zoo(request, zoo_of):
    return zoo_of(request.param)


@pytest.fixture(scope="module")
def switched(zoo):
    return ask(zoo, "switched")


@pytest.fixture(scope="module")
def stock(zoo, switched):
    """From the same process: it had to start no other vLLM."""
    return ask(zoo, "stock")


def test_tasks_differ(stock):
    """Else the rest would say nothing."""
    seen = [json.dumps(stock[str(name)]["prompts"]) for name in NAMES]
    assert len(set(seen)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_task_by_itself(stock, switched, name):
    assert switched["alone"][str(name)] == stock[str(name)]["prompts"]


def test_one_prompt_under_alternating_tasks(stock, switched):
    """No task sees another's cache, and each finds its own again."""
    for round_, step in enumerate(switched["alternating"]):
        assert step["tokens"] == stock[str(step["task"])]["long"]
        assert step["n_cached"] == (0 if round_ < 3 else 64)


def test_interleaved_requests_of_all_tasks(stock, switched):
    for (prompt, name, length), said in zip(mix(), switched["mixed"], strict=True):
        assert said == stock[str(name)]["prompts"][prompt][:length]


def test_tasks_took_turns(switched):
    """Far fewer switches than steps, and more than one turn a task."""
    assert 20 < switched["statistics"]["n_switches"] < 400


def test_the_base_is_bit_identical_after_many_switches(switched):
    assert SWITCHES >= 1000
    assert switched["base_is_exact"] is True


def test_a_task_replaced_under_its_name(stock, switched):
    """The new one's tokens, and the old content is not kept."""
    assert switched["replaced"]["tokens"] == stock["second"]["prompts"]
    assert switched["replaced"]["held"] == sorted((*TASKS, ADAPTER))


def test_two_tensor_parallel_processes(zoo, stock):
    """Each holds its part of every matrix and switches it by itself."""
    if zoo.kind != "llama":
        pytest.skip("once is enough")
    sharded = ask(zoo, "sharded")
    for name in NAMES:
        expected = [said[:24] for said in stock[str(name)]["prompts"]]
        assert sharded[str(name)] == expected
