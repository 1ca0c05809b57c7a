"""Where and with what a result was measured, part of every result file, and how one is written."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent
PACKAGES = ("nps-store", "torch", "transformers", "safetensors", "numpy", "cma", "zstandard")


def circumstances(device: str = "cpu") -> dict[str, Any]:
    """Commit, date, processor, accelerator and library versions."""
    return {
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def measured_on(about: Mapping[str, Any]) -> str:
    """The GPU, or the processor where there was none."""
    device: str = about["processor"] if about["device"] == "cpu" else about["device"]
    return device


def commit() -> str:
    """Of the checkout that this file is in, "-dirty" behind it where files were changed; an
    installed package has none."""
    if not (ROOT / ".git").exists():
        return "unknown"
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    for line in known.read_text(encoding="utf-8").splitlines() if known.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def write_result(out: Path, result: Mapping[str, Any]) -> None:
    """Write a result file; whoever reads it meanwhile sees the old one or the new one, whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(out)


def choose_gpu(number: int) -> None:
    """Let a process use one of the GPUs, where there are several; the same for the same number."""
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(number % torch.cuda.device_count())
