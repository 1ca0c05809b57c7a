"""What the tests ask of real vLLM on a GPU, in a process of its own: tokens, and how likely the
likeliest were. Run as a module with a zoo's directory and kind, and a number of GPUs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.server.engines.vllm.models import CONTEXT, Zoo
from tests.server.engines.vllm.scenario import LONG, PROMPTS, mix, sampling

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = {
    "dtype": "bfloat16", "max_model_len": CONTEXT, "max_num_seqs": 16, "seed": 0,
    "gpu_memory_utilization": 0.2, "kv_cache_memory_bytes": 1 << 30, "max_logprobs": 5,
    "enable_prefix_caching": True,
    "disable_custom_all_reduce": True,
    "compilation_config": {"cudagraph_capture_sizes": [1, 2, 4, 8, 16]},
}  # fmt: skip
NAMES = (None, "second", "lossless")
N_TOKENS = 40
N_LIKELIEST = 5

Step = dict[str, Any]
"""The `token`, and the `likeliest` with their log-probabilities."""


def steps(output: Any) -> list[Step]:
    """Of one answer."""
    said = output.outputs[0]
    return [
        {"token": token, "likeliest": {str(t): float(p.logprob) for t, p in likeliest.items()}}
        for token, likeliest in zip(said.token_ids, said.logprobs, strict=True)
    ]


def one_by_one(ask: Callable[[str], Any]) -> dict[str, list[list[Step]]]:
    """Every prompt by itself; and a long one twice, the second time from the prefix cache."""
    prompts = [steps(ask(prompt)) for prompt in PROMPTS]
    return {"prompts": prompts, "long": [steps(ask(LONG)) for _ in range(2)]}


def wanted(n_tokens: int = N_TOKENS) -> Any:
    params = sampling(n_tokens)
    params.logprobs = N_LIKELIEST
    return params


def of_stock(zoo: Zoo, n_gpus: int) -> dict[str, Any]:
    """Every task from its own dense checkpoint."""
    from vllm import LLM

    made = {}
    for name in NAMES:
        llm = LLM(str(zoo.dense(name)), tensor_parallel_size=n_gpus, **SIZE)
        made[str(name)] = one_by_one(
            lambda prompt, llm=llm: llm.generate([prompt], wanted(), use_tqdm=False)[0]
        )
        llm.llm_engine.engine_core.shutdown()
    return made


def of_switched(zoo: Zoo, n_gpus: int) -> dict[str, Any]:
    """Every task from one engine: alone, alternating on one prompt, and interleaved."""
    from server.engines.vllm.offline import TaskLLM

    with TaskLLM(zoo.store, quantum_s=0.01, tensor_parallel_size=n_gpus, **SIZE) as llm:
        made: dict[str, Any] = {
            str(name): one_by_one(
                lambda prompt, name=name: llm.generate([prompt], wanted(), task=name)[0]
            )
            for name in NAMES
        }
        made["alternating"] = [
            (str(name), steps(llm.generate([LONG], wanted(), task=name)[0])) for name in NAMES * 3
        ]
        requests = [(p, n, min(length, N_TOKENS)) for p, n, length in mix() if n in NAMES]
        outputs = llm.generate(
            [PROMPTS[prompt] for prompt, *_ in requests],
            [wanted(length) for *_, length in requests],
            task=[name for _, name, _ in requests],
        )
        made["mixed"] = [
            (prompt, str(name), steps(output))
            for (prompt, name, _), output in zip(requests, outputs, strict=True)
        ]
        made["n_switches"] = len(llm.llm.collective_rpc("recent_switches_s")[0])
    return made


def main(root: str, kind: str, n_gpus: str) -> None:
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    os.environ["VLLM_ALLREDUCE_USE_SYMM_MEM"] = "0"
    zoo = Zoo(Path(root), kind)
    stock, switched = of_stock(zoo, int(n_gpus)), of_switched(zoo, int(n_gpus))
    (zoo.root / f"gpu {n_gpus}.json").write_text(json.dumps({"stock": stock, "switched": switched}))


if __name__ == "__main__":
    main(*sys.argv[1:])
