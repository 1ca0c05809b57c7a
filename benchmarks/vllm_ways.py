"""Ways to serve several fine-tunes of one base with vLLM, each over files with random weights."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.lm_training import Size
from benchmarks.pair import LARGE, make_base, shards
from benchmarks.task_reads import write_task
from benchmarks.vllm_load import run, summary, zipf_mix
from formats.container import Container
from formats.writer import ContainerWriter
from nps_store.checkpoint import Checkpoint
from nps_store.compress.writing import TaskSink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.vllm_load import Asked

    Measured = dict[str, Any]

RANK = 16
WINDOW = 64
SIZES = {
    "tiny": Size(vocab=2048, context=2048, hidden=256, layers=4, heads=4, kv_heads=2, mlp=704),
    "small": Size(vocab=8192, context=2048),
    "1b": Size(vocab=128256, context=2048, hidden=2048, layers=16, heads=32, kv_heads=8, mlp=8192),
    "8b": LARGE,
}


def make_files(folder: Path, size: Size, *, n_tasks: int, keep: float, device: str) -> None:
    """`base`, `tasks.nps` and `adapters` below a folder, where they are not there yet."""
    if not (folder / "base").exists():
        make_base(folder / "base", size, device=device)
    if not (folder / "tasks.nps").exists():
        _make_store(folder, n_tasks, keep)
    if not (folder / "adapters").exists():
        for number in range(n_tasks):
            _make_adapter(folder / "adapters" / str(number), size, number)


def kept_fraction(folder: Path) -> float:
    """Of the first task; a few of the positions that are drawn fall together."""
    with Container.open(folder / "tasks.nps") as container:
        n_values = sum(entry.n_values for entry in container.task_reader("task0"))
        return n_values / sum(tensor.numel for tensor in container.base.tensors)


def with_tasks(
    folder: Path, options: Measured, asked: Sequence[Asked], quantum_s: float
) -> Measured:
    """This project's engine."""
    from server.engines.vllm.offline import TaskLLM

    with TaskLLM(folder / "tasks.nps", base=folder / "base", quantum_s=quantum_s, **options) as llm:
        routes = [llm.route(name) for name in llm.store.tasks]
        run(llm.llm, _warm_up(asked), routes.__getitem__)
        before = _switches(llm)
        measured = run(llm.llm, asked, routes.__getitem__)
        after = _switches(llm)
    n = after["n_switches"] - before["n_switches"]
    seconds = after["switch_s"] - before["switch_s"]
    return measured | {"n_switches": n, "switch_ms": 1e3 * seconds / n if n else None}


def with_one_task(
    folder: Path, options: Measured, asked: Sequence[Asked], quantum_s: float
) -> Measured:
    """The same, all requests being for one of the tasks."""
    for each in asked:
        each.task = 0
    return with_tasks(folder, options, asked, quantum_s)


def with_adapters(folder: Path, options: Measured, asked: Sequence[Asked], _: float) -> Measured:
    """Stock vLLM's own way: low-rank adapters, all in one batch."""
    from vllm import LLM
    from vllm.lora.request import LoRARequest

    paths = sorted((folder / "adapters").iterdir())
    routes = [LoRARequest(path.name, n, str(path)) for n, path in enumerate(paths, 1)]
    lora = {"enable_lora": True, "max_loras": len(routes), "max_lora_rank": RANK}
    llm = LLM(str(folder / "base"), **lora, **options)
    run(llm, _warm_up(asked), routes.__getitem__)
    return run(llm, asked, routes.__getitem__)


def with_reloads(folder: Path, options: Measured, asked: Sequence[Asked], _: float) -> Measured:
    """Stock vLLM that loads a checkpoint whenever another task is next. Of the requests in the
    order of their arrival it takes so many at a time as run at once, and serves these by task.

    All load the same files, so that room for one checkpoint is enough.
    """
    from vllm import LLM

    llm = LLM(str(folder / "base"), **options)
    run(llm, _warm_up(asked), lambda _: None)
    seconds, waits, n_switches = 0.0, [], 0
    for group in _by_task(asked):
        began, offset = time.perf_counter(), seconds
        llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder / "base")})
        reload_s = time.perf_counter() - began
        seconds += reload_s + run(llm, group, lambda _: None)["seconds"]
        waits.append(reload_s)
        n_switches += 1
        for each in group:
            each.first_s += offset + reload_s
            each.queue_s += offset + reload_s
    measured = summary(asked, seconds, [])
    return measured | {"n_switches": n_switches, "switch_ms": 1e3 * sum(waits) / n_switches}


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


def _switches(llm: Any) -> Measured:  # noqa: ANN401
    told: Measured = llm.llm.collective_rpc("task_statistics")[0]
    return told


def _make_store(folder: Path, n_tasks: int, keep: float) -> None:
    base = Checkpoint(folder / "base")
    sink, rng = TaskSink.of(base), np.random.default_rng(0)
    with ContainerWriter.create(folder / "tasks.nps") as writer:
        sink.set_base(writer, embed=False, name="base", path_hint="base")
        files = {n: writer.add_file(path.read_bytes()) for n, path in base.files().items()}
        for number in range(n_tasks):
            write_task(writer, f"task{number}", sink.tensors, keep, rng, scale=1e-3, files=files)
        writer.commit()


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
    measured = WAYS[way](Path(folder), told["options"], asked, told["quantum_s"])
    (Path(folder) / "measured.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])
