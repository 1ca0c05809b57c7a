"""Ways to serve several fine-tunes of one base with vLLM, each over files with random weights."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.distribution import distribution
from benchmarks.lm_training import Size
from benchmarks.pair import LARGE, make_base, shards
from benchmarks.vllm_load import run, summary, zipf_mix
from formats.container import Container
from formats.records import SparseLevels
from formats.writer import ContainerWriter
from nps_store.checkpoint import Checkpoint
from nps_store.compress.writing import TaskSink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.vllm_load import Asked
    from server.engines.vllm.offline import TaskLLM

    Measured = dict[str, Any]

RANK = 16
WINDOW = 64
SIZES = {
    "tiny": Size(vocab=2048, context=2048, hidden=256, layers=4, heads=4, kv_heads=2, mlp=704),
    "small": Size(vocab=8192, context=2048),
    "1b": Size(vocab=128256, context=2048, hidden=2048, layers=16, heads=32, kv_heads=8, mlp=8192),
    "8b": LARGE,
}


@dataclass(frozen=True)
class Limits:
    """Of time.

    Attributes:
        quantum_s: That a task keeps the model while another waits.
        seconds: After which what is not done is abandoned; None: never.
    """

    quantum_s: float
    seconds: float | None = None


def make_files(folder: Path, size: Size, *, n_tasks: int, keep: float, device: str) -> None:
    """`base`, `tasks.nps` and `adapters` below a folder, where they are not there yet."""
    if not (folder / "base").exists():
        make_base(folder / "base", size, device=device)
        if device == "cuda":
            torch.cuda.empty_cache()  # vLLM wants to have the memory
    if not (folder / "tasks.nps").exists():
        _make_store(folder, n_tasks, keep)
    if not (folder / "adapters").exists():
        for number in range(n_tasks):
            _make_adapter(folder / "adapters" / str(number), size, number)


def kept_fraction(folder: Path) -> float:
    """Of the first task."""
    with Container.open(folder / "tasks.nps") as container:
        n_values = sum(entry.n_values for entry in container.task_reader("task0"))
        return n_values / sum(tensor.numel for tensor in container.base.tensors)


def with_tasks(folder: Path, options: Measured, asked: Sequence[Asked], limits: Limits) -> Measured:
    """This project's engine."""
    from server.engines.vllm.offline import TaskLLM

    quantum_s, store = limits.quantum_s, folder / "tasks.nps"
    with TaskLLM(store, base=folder / "base", quantum_s=quantum_s, **options) as llm:
        routes = [llm.route(name) for name in llm.store.tasks]
        run(llm.llm, _warm_up(asked), routes.__getitem__)
        n_before = len(_switches_s(llm))
        measured = run(llm.llm, asked, routes.__getitem__, seconds=limits.seconds)
        switches_s = _switches_s(llm)[n_before:]
    n_tasks = len({each.task for each in asked})
    bound_s = quantum_s * n_tasks + measured["step_s"]["max"]
    return measured | {
        "n_switches": len(switches_s),
        "switch_s": distribution(switches_s),
        "task_wait_bound_s": bound_s,
    }


def with_one_task(
    folder: Path, options: Measured, asked: Sequence[Asked], limits: Limits
) -> Measured:
    """The same, all requests being for one of the tasks."""
    for each in asked:
        each.task = 0
    return with_tasks(folder, options, asked, limits)


def with_adapters(
    folder: Path, options: Measured, asked: Sequence[Asked], limits: Limits
) -> Measured:
    """Stock vLLM's own way: low-rank adapters, all in one batch."""
    from vllm import LLM
    from vllm.lora.request import LoRARequest

    paths = sorted((folder / "adapters").iterdir())
    routes = [LoRARequest(path.name, n, str(path)) for n, path in enumerate(paths, 1)]
    lora = {"enable_lora": True, "max_loras": len(routes), "max_lora_rank": RANK}
    llm = LLM(str(folder / "base"), **lora, **options)
    run(llm, _warm_up(asked), routes.__getitem__)
    measured = run(llm, asked, routes.__getitem__, seconds=limits.seconds)
    llm.llm_engine.engine_core.shutdown()
    return measured


def with_reloads(
    folder: Path, options: Measured, asked: Sequence[Asked], limits: Limits
) -> Measured:
    """Stock vLLM that loads a checkpoint whenever another task is next. Of the requests in the
    order of their arrival it takes so many at a time as run at once, and serves these by task.

    All load the same files, so that room for one checkpoint is enough.
    """
    from vllm import LLM

    llm = LLM(str(folder / "base"), **options)
    run(llm, _warm_up(asked), lambda _: None)
    seconds, reloads_s = 0.0, []
    for group in _by_task(asked):
        left_s = None if limits.seconds is None else limits.seconds - seconds
        if left_s is not None and left_s <= 0:
            break
        began, offset_s = time.perf_counter(), seconds
        llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder / "base")})
        reloads_s.append(time.perf_counter() - began)
        offset_s += reloads_s[-1]
        left_s = None if left_s is None else left_s - reloads_s[-1]
        seconds = offset_s + run(llm, group, lambda _: None, seconds=left_s)["seconds"]
        for each in group:
            each.first_s += offset_s
            each.queue_s += offset_s
    llm.llm_engine.engine_core.shutdown()
    return summary(asked, seconds) | {
        "n_switches": len(reloads_s),
        "switch_s": distribution(reloads_s),
    }


WAYS: dict[str, Callable[..., Measured]] = {
    "tasks": with_tasks,
    "one task": with_one_task,
    "adapters": with_adapters,
    "reloads": with_reloads,
}


def _by_task(asked: Sequence[Asked]) -> Iterator[list[Asked]]:
    for first in range(0, len(asked), WINDOW):
        groups: dict[int, list[Asked]] = {}
        for each in asked[first : first + WINDOW]:
            each.at_s = 0.0
            groups.setdefault(each.task, []).append(each)
        yield from groups.values()


def _warm_up(asked: Sequence[Asked]) -> list[Asked]:
    """A short request of each task, and a batch of the usual size."""
    firsts = {each.task: each for each in asked}.values()
    some = [*firsts, *asked[:WINDOW]]
    return [replace(e, number=-1 - i, n_tokens=16, at_s=0.0) for i, e in enumerate(some)]


def _switches_s(llm: TaskLLM) -> list[float]:
    """Of each switch so far, in the worker, until the device was done."""
    told: list[float] = llm.llm.collective_rpc("recent_switches_s")[0]
    return told


def _make_store(folder: Path, n_tasks: int, keep: float) -> None:
    base = Checkpoint(folder / "base")
    sink, rng = TaskSink.of(base), np.random.default_rng(0)
    with ContainerWriter.create(folder / "tasks.nps") as writer:
        sink.set_base(writer, embed=False, name="base", path_hint="base")
        files = {n: writer.add_file(path.read_bytes()) for n, path in base.files().items()}
        for number in range(n_tasks):
            with writer.begin_task(f"task{number}") as task:
                for index, tensor in enumerate(sink.tensors):
                    record = _random_signs(rng, tensor.numel, keep)
                    task.add(tensor.name, dtype=tensor.dtype, shape=tensor.shape, base=index,
                             record=record)  # fmt: skip
                task.finish(files=files)
        writer.commit()


def _random_signs(rng: np.random.Generator, numel: int, keep: float) -> SparseLevels:
    """At positions that have nothing to do with each other: drawn by the gaps between them, and
    coded by these, in a second for 10 million."""
    gaps = rng.geometric(keep, int(1.1 * keep * numel) + 64)
    positions = np.cumsum(gaps) - 1
    positions = positions[: np.searchsorted(positions, numel)]
    levels = 2 * rng.integers(0, 2, positions.size, np.int8) - 1
    return SparseLevels(numel, positions, levels, np.full(1, 1e-3, np.float32))


def _make_adapter(folder: Path, size: Size, seed: int) -> None:
    generator, tensors, modules = torch.Generator().manual_seed(seed), {}, set()
    for layer in shards(size)[: size.layers]:
        for name, shape in layer.items():
            if len(shape) == 2:
                where = f"base_model.model.{name.removesuffix('.weight')}"
                modules.add(name.split(".")[-2])
                for side, dims in {"A": (RANK, shape[1]), "B": (shape[0], RANK)}.items():
                    values = 0.01 * torch.randn(dims, generator=generator)
                    tensors[f"{where}.lora_{side}.weight"] = values.to(torch.bfloat16)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK,
              "bias": "none", "target_modules": sorted(modules)}  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")


def main(way: str, folder: str, words: str) -> None:
    """Measure one way, in this process; the result goes into a file."""
    told = json.loads(words)
    asked = zipf_mix(**told["asked"])
    measured = WAYS[way](Path(folder), told["options"], asked, Limits(**told["limits"]))
    (Path(folder) / "measured.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])
