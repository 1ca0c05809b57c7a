"""All that the tests ask of real vLLM, in a process of its own: it binds threads and memory, and
says things on the way. Run as a module with a zoo's directory and kind; answers in JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nps_store.compress import Options, TaskSource, add
from tests.server.engines.vllm.models import ADAPTER, CONTEXT, TASKS, Zoo

if TYPE_CHECKING:
    from server.engines.vllm.offline import TaskLLM

SIZE = {
    "dtype": "float32", "enforce_eager": True, "max_model_len": CONTEXT, "max_num_seqs": 16,
    "kv_cache_memory_bytes": 32 << 20, "block_size": 32, "enable_prefix_caching": True, "seed": 0,
}  # fmt: skip
WORDS = ["red", "green", "blue", "black", "white", "small", "large", "old", "new", "hot", "cold"]
PROMPTS = [" ".join(WORDS[i % 11] for i in range(n, n + 3 + 2 * n)) for n in range(4)]
LONG = " ".join(WORDS[(3 * i) % 11] for i in range(80))
NAMES = (None, *TASKS, ADAPTER)
SWITCHES = 1000


def sampling(n_tokens: int) -> Any:
    from vllm import SamplingParams

    return SamplingParams(temperature=0, max_tokens=n_tokens, ignore_eos=True)


def tokens(outputs: list[Any]) -> list[list[int]]:
    return [list(output.outputs[0].token_ids) for output in outputs]


def mix() -> list[tuple[int, str | None, int]]:
    """Requests (prompt, task, length) of all tasks in disorder."""
    rng = np.random.default_rng(0)
    return [
        (int(rng.integers(len(PROMPTS))), NAMES[rng.integers(len(NAMES))], int(rng.integers(4, 90)))
        for _ in range(48)
    ]


def of_stock(zoo: Zoo) -> dict[str, Any]:
    """Every task from its own dense checkpoint."""
    from vllm import LLM

    made = {}
    for name in NAMES:
        llm = LLM(str(zoo.dense(name)), **SIZE)
        made[str(name)] = {
            "prompts": tokens(llm.generate(PROMPTS, sampling(90), use_tqdm=False)),
            "long": tokens(llm.generate([LONG], sampling(24), use_tqdm=False))[0],
        }
        llm.llm_engine.engine_core.shutdown()
    return made


def of_switched(zoo: Zoo) -> dict[str, Any]:
    """Every task from one engine."""
    from server.engines.vllm.offline import TaskLLM

    store = Path(shutil.copy(zoo.store, zoo.root / "changing.nps"))
    with TaskLLM(store, base=zoo.base, quantum_s=0.02, **SIZE) as llm:
        made: dict[str, Any] = {"alone": {}}
        for name in NAMES:
            made["alone"][str(name)] = tokens(llm.generate(PROMPTS, sampling(90), task=name))
        made["alternating"] = alternating(llm)
        requests = mix()
        made["mixed"] = tokens(
            llm.generate(
                [PROMPTS[prompt] for prompt, _, _ in requests],
                [sampling(length) for *_, length in requests],
                task=[name for _, name, _ in requests],
            )
        )
        made["statistics"] = ask(llm, "task_statistics")
        made["base_is_exact"] = after_random_switches(llm)
        made["replaced"] = after_replacement(llm, zoo)
        return made


def alternating(llm: TaskLLM) -> list[dict[str, Any]]:
    """One prompt under two tasks and the base in turn, each with its own cache."""
    made = []
    for name in ["second", "lossless", None] * 3:
        [output] = llm.generate([LONG], sampling(24), task=name)
        made.append(
            {"task": name, "tokens": tokens([output])[0], "n_cached": output.num_cached_tokens}
        )
    return made


def ask(llm: TaskLLM, method: str) -> Any:
    return llm.llm.llm_engine.collective_rpc(method)[0]


def after_random_switches(llm: TaskLLM) -> bool:
    """Whether the base is bit-identical after many switches, asked of the worker itself."""
    import torch

    from server.engines.vllm.routing import target_of

    core = llm.llm.llm_engine.engine_core.engine_core
    worker = core.model_executor.driver_worker.worker
    worker.put_base_in_place()
    before = {name: p.clone() for name, p in worker.model_runner.get_model().named_parameters()}
    contents = [target_of(llm.route(name)) if name else None for name in NAMES]
    rng = np.random.default_rng(1)
    for _ in range(SWITCHES):
        error = worker._residency.switch_(contents[rng.integers(len(contents))])
        assert error is None
    worker.put_base_in_place()
    now = dict(worker.model_runner.get_model().named_parameters())
    return all(
        torch.equal(before[n].view(torch.int32), p.view(torch.int32)) for n, p in now.items()
    )


def after_replacement(llm: TaskLLM, zoo: Zoo) -> dict[str, Any]:
    """What a name says when it means another task, and which contents are held then."""
    source = TaskSource("fifth", zoo.dense("second"))
    add(llm.store.path, [source], options=Options("exact"), base=None, replace=True)
    said = tokens(llm.generate(PROMPTS, sampling(90), task="fifth"))
    held = [each["task"] for each in ask(llm, "task_states")["tasks"]]
    return {"tokens": said, "held": sorted(name for name, _ in held)}


def of_sharded(zoo: Zoo) -> dict[str, Any]:
    """Every task from an engine whose weights are spread over two processes."""
    from server.engines.vllm.offline import TaskLLM

    with TaskLLM(zoo.store, tensor_parallel_size=2, **SIZE) as llm:
        return {str(n): tokens(llm.generate(PROMPTS, sampling(24), task=n)) for n in NAMES}


def main(root: str, kind: str, which: str) -> None:
    """The engine that loads numba is the last of its process: vLLM's CPU backend looks into every
    loaded module when it starts, and stumbles over llvmlite's."""
    zoo = Zoo(Path(root), kind)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if which == "sharded":
        made = {which: of_sharded(zoo)}
    else:
        made = {"stock": of_stock(zoo)}
        if which == "switched":
            made[which] = of_switched(zoo)
    for name, answers in made.items():
        (zoo.root / f"{name}.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
