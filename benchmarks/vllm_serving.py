"""Tasks of a store served by vLLM, beside one task alone and vLLM's own ways of serving several.

    python -m benchmarks.vllm_serving --device cpu --size tiny
    python -m benchmarks.vllm_serving --device cuda --size 8b

Random weights, which cost the time of real ones. The same requests each way, every way in a process
of its own, in turn. A step of the model has at most as many requests each way: where every task has
that many waiting, batches are full whosever they are. All requests at once with `--seconds` show
that; with `--rate`, or until the last one is done, tasks with few requests have small batches.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import circumstances, write_result
from benchmarks.vllm_ways import SIZES, WAYS, kept_fraction, make_files
from server.engines.vllm.version import check_vllm

CAPTURED = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)
"""Sizes of batches that CUDA graphs are made for."""
RESULTS = Path("benchmarks") / "results"


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda; what vLLM is built for.")] = "cpu",
    size: Annotated[str, typer.Option(help=f"One of {', '.join(SIZES)}.")] = "tiny",
    work: Annotated[Path, typer.Option(help="Where models are made and found.")] = Path(
        "vllm-work"
    ),
    tasks: Annotated[int, typer.Option(help="Tasks.")] = 8,
    keep: Annotated[float, typer.Option(help="Fraction of each that is kept.")] = 0.005,
    requests: Annotated[int, typer.Option(help="Requests.")] = 256,
    longest: Annotated[int, typer.Option(help="Tokens of the longest answer.")] = 1024,
    rate: Annotated[float | None, typer.Option(help="Arrivals a second; all at once.")] = None,
    quantum_ms: Annotated[float, typer.Option(help="That a task keeps the model.")] = 250.0,
    sequences: Annotated[int, typer.Option(help="Requests in one step of the model.")] = 32,
    seconds: Annotated[
        float | None, typer.Option(help="After which a way is measured; all requests done.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Of all ways; the median is shown.")] = 1,
    ways: Annotated[str, typer.Option(help="Which, with commas between.")] = ",".join(WAYS),
    memory: Annotated[float, typer.Option(help="Fraction of a GPU's memory.")] = 0.85,
    eager: Annotated[bool, typer.Option(help="No compiling and no CUDA graphs.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where to write the result.")] = None,
) -> None:
    """Measure all ways."""
    folder = work / f"{size}-{tasks}-{keep:g}"
    make_files(folder, SIZES[size], n_tasks=tasks, keep=keep, device=device)
    asked = {"n": requests, "n_tasks": tasks, "longest": longest, "rate": rate}
    limits = {"quantum_s": quantum_ms / 1e3, "seconds": seconds}
    options: dict[str, Any] = {
        "max_model_len": 2048, "max_num_seqs": sequences * tasks,
        "max_num_active_seqs": sequences, "skip_tokenizer_init": True, "seed": 0,
        "disable_log_stats": False, "enforce_eager": eager or device == "cpu",
    }  # fmt: skip
    if device == "cuda":
        sizes = [n for n in CAPTURED if n < sequences] + [sequences]
        options["gpu_memory_utilization"] = memory
        options["compilation_config"] = {"cudagraph_capture_sizes": sizes}
    else:
        options |= {"kv_cache_memory_bytes": 2 << 30, "block_size": 32}
    result: dict[str, Any] = {
        "schema": "nps.bench-vllm-serving/1",
        "command": f"python -m benchmarks.vllm_serving {' '.join(sys.argv[1:])}".strip(),
        **circumstances(device),
        "size": size, "tasks": tasks, "kept": kept_fraction(folder), "vllm": check_vllm(),
        "limits": limits, "requests": asked, "engine": options, "rounds": [],
    }  # fmt: skip
    out = out or RESULTS / f"vllm_serving_{device}_{size}.json"
    for _ in range(rounds):
        round_: dict[str, Any] = {}
        result["rounds"].append(round_)
        for way in ways.split(","):
            round_[way] = _measured(way, folder, options, asked, limits)
            write_result(out, result)
    _show(result)


def _measured(
    way: str,
    folder: Path,
    options: dict[str, Any],
    asked: dict[str, Any],
    limits: dict[str, float | None],
) -> dict[str, Any]:
    words = json.dumps({"options": options, "asked": asked, "limits": limits})
    command = [sys.executable, "-m", "benchmarks.vllm_ways", way, str(folder), words]
    subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603 (a module of this package)
    measured: dict[str, Any] = json.loads((folder / "measured.json").read_text())
    return measured


def _show(result: dict[str, Any]) -> None:
    table = Table("way", "tokens/s", "first token p50", "p99", "task waits p99", "at most by rule",
                  "switches", "ms p50", "p99")  # fmt: skip
    for way in result["rounds"][0]:
        rows = [round_[way] for round_ in result["rounds"]]
        row = sorted(rows, key=lambda each: each["tokens_per_s"])[len(rows) // 2]
        speed = statistics.median(each["tokens_per_s"] for each in rows)
        first, waits, switch = row["first_token_s"], row["task_wait_s"], row.get("switch_s", {})
        cells = [f"{speed:.0f}", f"{first['p50']:.3f} s", f"{first['p99']:.3f} s"]
        cells.append(f"{waits['p99']:.3f} s" if "p99" in waits else "")
        cells.append(f"{row['task_wait_bound_s']:.3f} s" if "task_wait_bound_s" in row else "")
        cells.append(str(row.get("n_switches", "")))
        cells += [f"{1e3 * switch[name]:.2f}" if name in switch else "" for name in ("p50", "p99")]
        table.add_row(way, *cells)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
