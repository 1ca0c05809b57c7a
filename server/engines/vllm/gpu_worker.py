"""The worker on a CUDA GPU."""

from __future__ import annotations

from vllm.v1.worker.gpu_worker import Worker

from server.engines.vllm.worker import SwitchingWorker


class SwitchingGpuWorker(SwitchingWorker, Worker):
    """On a CUDA GPU."""

    def determine_available_memory(self) -> int:
        """Bytes for the cache of keys and values, which leaves room for the prepared tasks."""
        available = int(super().determine_available_memory())
        is_chosen = self.cache_config.kv_cache_memory_bytes is not None
        return available if is_chosen else available - self._options.max_nbytes
