"""The worker on the CPU.

A module of its own: where vLLM's is imported, CUDA's streams and events do nothing any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.v1.worker.cpu_worker import CPUWorker

from server.engines.vllm.cpu_weights import check_resident
from server.engines.vllm.worker import SwitchingWorker

if TYPE_CHECKING:
    from torch import nn


class SwitchingCpuWorker(SwitchingWorker, CPUWorker):
    """On the CPU."""

    def check_model(self, model: nn.Module) -> None:
        """Raises UnsafeLayoutError where vLLM packed a weight."""
        check_resident(model)
