"""Does a large pair of checkpoints fit the machine? Time and memory of compress and export.

    python -m benchmarks.large --layers 32 --folder DIR      # 8.0 B parameters, 2 x 16 GB on disk

The pair is synthetic (random weights in bf16; the fine-tune adds 1 % noise to every tensor): sizes
and speed are real, quality is not measured.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import circumstances, write_result
from benchmarks.pair import LARGE, make_pair

RESULT = Path("benchmarks") / "results" / "large.json"


def main(
    folder: Annotated[Path, typer.Option(help="Where to put the pair; removed afterwards.")],
    layers: Annotated[int, typer.Option(help="32 makes 8.0 B parameters, 1 makes 1.3 B.")] = 32,
    keep: Annotated[
        float, typer.Option(help="Kept fraction; this is the one without calibration data.")
    ] = 0.04,
) -> None:
    """Make the pair, compress it, export it, compare sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        numel = make_pair(folder, replace(LARGE, layers=layers))
        store = folder / "large.nps"
        compress = _watch(
            "compress", "--base", str(folder / "base"), "--task", f"t={folder / 'fine-tune'}",
            "--out", str(store), "--method", "dither", "--keep", str(keep),
        )  # fmt: skip
        export = _watch("export", str(store), "t", "--out", str(folder / "restored"))
        result = {
            "schema": "nps.bench-large/1",
            "command": f"python -m benchmarks.large --layers {layers}",
            **circumstances(),
            "numel": numel,
            "keep": keep,
            "dense_nbytes": 2 * numel,
            "store_nbytes": store.stat().st_size,
            "compress": compress,
            "export": export,
        }
    finally:
        for name in ("base", "fine-tune", "restored"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "large.nps").unlink(missing_ok=True)
    write_result(RESULT, result)
    table = Table("verb", "seconds", "peak anonymous GB", "peak mapped GB")
    for verb in ("compress", "export"):
        seen = result[verb]
        table.add_row(verb, f"{seen['seconds']:.0f}", f"{seen['anonymous_nbytes'] / 1e9:.2f}",
                      f"{seen['mapped_nbytes'] / 1e9:.2f}")  # fmt: skip
    Console().print(table)
    Console().print(f"{numel:,} parameters, {result['store_nbytes']:,} bytes stored")


def _watch(*arguments: str) -> dict[str, Any]:
    """Run a verb; its time and the peaks of its anonymous and of its file-mapped memory."""
    start = time.perf_counter()
    command = [str(Path(sys.executable).parent / "nps"), *arguments]
    process = subprocess.Popen(command)  # noqa: S603
    status = Path(f"/proc/{process.pid}/status")
    peaks = {"RssAnon": 0, "RssFile": 0}
    while process.poll() is None:
        for line in status.read_text().splitlines():
            name, _, value = line.partition(":")
            if name in peaks:
                peaks[name] = max(peaks[name], 1024 * int(value.split()[0]))
        time.sleep(0.1)
    if process.returncode:
        raise typer.Exit(process.returncode)
    return {
        "seconds": time.perf_counter() - start,
        "anonymous_nbytes": peaks["RssAnon"],
        "mapped_nbytes": peaks["RssFile"],
    }


if __name__ == "__main__":
    typer.run(main)
