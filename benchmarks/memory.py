"""How much memory a stretch of a program holds, and holds at most."""

from __future__ import annotations

import ctypes
import gc
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

_INTERVAL_S = 0.005
_M_MMAP_THRESHOLD = -3
"""Of glibc's `mallopt`: larger blocks are the system's own, and given back when they are freed."""
_ARRAY_NBYTES = 1 << 16


@dataclass
class Peak:
    """Bytes at most; there when the stretch is over."""

    nbytes: int = 0


class Memory(Protocol):
    """Of a host or a device."""

    def held(self) -> int:
        """Bytes that live objects hold."""

    def peak(self) -> AbstractContextManager[Peak]:
        """The most that is held at any moment within the context."""


class HostMemory:
    """Anonymous memory of this process. Mapped files are not counted: a checkpoint's pages are
    the system's cache, which gives them up when memory is wanted.

    From when it is made, what is freed goes back to the system at once, as far as arrays are
    concerned: what the allocator keeps for later would be counted as live, a hundred megabytes or
    none as the sizes happen to follow each other. That costs time, so none should be measured.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._libc.mallopt(_M_MMAP_THRESHOLD, _ARRAY_NBYTES)

    def held(self) -> int:
        """Bytes that live objects hold."""
        gc.collect()
        self._libc.malloc_trim(0)
        return _anonymous_nbytes()

    @contextmanager
    def peak(self) -> Iterator[Peak]:
        """Sampled, since Linux keeps a high-water mark only of all resident pages."""
        peak, over = Peak(self.held()), threading.Event()

        def sample() -> None:
            while not over.wait(_INTERVAL_S):
                peak.nbytes = max(peak.nbytes, _anonymous_nbytes())

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            yield peak
        finally:
            over.set()
            sampler.join()


class DeviceMemory:
    """What torch has allocated on the current CUDA device."""

    def held(self) -> int:
        """Without what the allocator keeps for later."""
        gc.collect()
        return torch.cuda.memory_allocated()

    @contextmanager
    def peak(self) -> Iterator[Peak]:
        """As torch counts it."""
        peak = Peak(self.held())
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak.nbytes = torch.cuda.max_memory_allocated()


def memory_of(device: str) -> Memory:
    """The memory that a model on a device takes."""
    return HostMemory() if device == "cpu" else DeviceMemory()


def _anonymous_nbytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status has no RssAnon; this benchmark needs Linux")
