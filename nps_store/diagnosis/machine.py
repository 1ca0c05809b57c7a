"""Processor, accelerator, memory, disk and limits."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nps_store.diagnosis.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")
"""Vector extensions by their names in /proc/cpuinfo."""
LITTLE_DISK, LITTLE_MEMORY = 1 << 30, 2 << 30
FEW_FILES = 1024
_CGROUP_MEMORY = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def look_at_machine(place: str | os.PathLike[str] = ".") -> Iterator[Finding]:
    """All findings.

    Args:
        place: Directory whose disk is to hold stores.
    """
    yield Finding(
        "python", f"{platform.python_version()} on {platform.platform()}", platform.python_version()
    )
    yield _byte_order()
    yield _processor()
    yield from _accelerators()
    yield _memory()
    yield _disk(Path(place))
    yield _open_files()


def _byte_order() -> Finding:
    if sys.byteorder == "little":
        return Finding("byte order", "little", "little")
    return Finding(
        "byte order",
        sys.byteorder,
        sys.byteorder,
        Severity.problem,
        "stores are little-endian, and so must the processor be",
    )


def _processor() -> Finding:
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    known = Path("/proc/cpuinfo")
    words = set(known.read_text(encoding="utf-8").split()) if known.exists() else set()
    features = [name for name in FEATURES if name in words]
    told = ", ".join(features) or platform.machine()
    return Finding(
        "processor", f"{n_cores} cores usable, {told}", {"n_cores": n_cores, "features": features}
    )


def _accelerators() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding(
            "torch",
            f"does not load: {error}",
            None,
            Severity.problem,
            "reinstall torch for this platform",
        )
        return
    yield Finding(
        "torch's loops",
        torch.backends.cpu.get_cpu_capability(),
        torch.backends.cpu.get_cpu_capability(),
    )
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        found = f"{about.name}, {about.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}"
        yield Finding(f"gpu {number}", found, {"name": about.name, "nbytes": about.total_memory})
    if not torch.cuda.device_count():
        yield Finding("gpu", "none that torch can use")


def _memory() -> Finding:
    pages = os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in os.sysconf_names else 0
    physical = pages * os.sysconf("SC_PAGE_SIZE")
    allowed = min([physical, *_cgroup_limits()])
    found = f"{allowed / 1e9:.1f} GB" + (" (limited by a cgroup)" if allowed < physical else "")
    if allowed < LITTLE_MEMORY:
        return Finding(
            "memory",
            found,
            allowed,
            Severity.warning,
            "base and working copies must fit; prefer tasks of small models",
        )
    return Finding("memory", found, allowed)


def _cgroup_limits() -> Iterator[int]:
    for path in map(Path, _CGROUP_MEMORY):
        text = path.read_text(encoding="ascii").strip() if path.is_file() else ""
        if text.isdigit():
            yield int(text)


def _disk(place: Path) -> Finding:
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:.1f} GB free"
    if free < LITTLE_DISK:
        return Finding(
            "disk here",
            found,
            free,
            Severity.warning,
            "make room: a store is written whole before it replaces another",
        )
    return Finding("disk here", found, free)


def _open_files() -> Finding:
    try:
        import resource
    except ModuleNotFoundError:
        return Finding("open files", "unknown on this platform")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FEW_FILES:
        return Finding(
            "open files",
            f"at most {soft}",
            soft,
            Severity.warning,
            f"`ulimit -n {min(4096, hard)}` before `nps serve`",
        )
    return Finding("open files", f"at most {soft}", soft)
