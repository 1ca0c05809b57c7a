"""What this engine's processes need to know, as it travels in vLLM's configuration."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from nps_store.errors import BadOptionError
from nps_store.switch.model_switcher import DEFAULT_MAX_HOST_NBYTES, DEFAULT_MAX_NBYTES

if TYPE_CHECKING:
    from vllm.config import VllmConfig

KEY = "nps"
"""Where they are in vLLM's `additional_config`."""


@dataclass(frozen=True)
class Options:
    """Options of the engine.

    Attributes:
        store: The store's path.
        base: Directory of the base, for a store that does not know where it is.
        quantum_s: Seconds that one task may keep the model while another waits.
        max_nbytes: Of prepared tasks beside the model, in each worker.
        max_host_nbytes: Of copies in pinned host memory, where the model is on a GPU.
    """

    store: str
    base: str | None = None
    quantum_s: float = 0.25
    max_nbytes: int = DEFAULT_MAX_NBYTES
    max_host_nbytes: int = DEFAULT_MAX_HOST_NBYTES

    def as_config(self) -> dict[str, Any]:
        """For vLLM's `additional_config`."""
        return {KEY: asdict(self)}

    @classmethod
    def of(cls, config: VllmConfig) -> Self:
        """Read back.

        Raises:
            BadOptionError: They are not there.
        """
        held = config.additional_config
        if not isinstance(held, dict) or KEY not in held:
            raise BadOptionError(
                "vLLM was started with this engine's classes but without its options",
                expected=f"additional_config[{KEY!r}]",
                hint="start it with `nps serve --engine vllm`",
            )
        return cls(**held[KEY])


def check_config(config: VllmConfig) -> None:
    """Refuse ways of running in which a task would be wrong, or only half of it in place.

    Raises:
        BadOptionError: Names the first.
    """
    parallel, offload = config.parallel_config, config.offload_config
    refused = {
        "pipeline parallelism": parallel.pipeline_parallel_size > 1,
        "speculative decoding (its draft model is not switched)": bool(config.speculative_config),
        "transfer of the KV cache": bool(config.kv_transfer_config),
        "expert load balancing": bool(parallel.enable_eplb),
        "sleep mode": bool(config.model_config.enable_sleep_mode),
        "weight offloading": bool(offload.uva.cpu_offload_gb),
        "weight prefetching": bool(offload.prefetch.offload_group_size),
    }
    for what, is_on in refused.items():
        if is_on:
            raise BadOptionError(f"the vllm engine does not work with {what}")
