"""How vLLM is told to serve a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm.platforms import current_platform

from nps_store.errors import BadOptionError
from server.engines.vllm.cpu_weights import NAME

if TYPE_CHECKING:
    from server.engines.vllm.options import Options

_HERE = "server.engines.vllm"


def engine_arguments(options: Options) -> dict[str, Any]:
    """Arguments of vLLM's engine, beside the model and the user's own.

    Args:
        options: Of this engine.

    Raises:
        BadOptionError: vLLM runs on something else here than a CPU or a CUDA GPU.
    """
    is_cpu = current_platform.is_cpu()
    if not is_cpu and not current_platform.is_cuda():
        raise BadOptionError(
            f"the vllm engine does not run on {current_platform.device_name}",
            expected="a CPU or a CUDA GPU",
        )
    kind = "cpu" if is_cpu else "gpu"
    return {
        "worker_cls": f"{_HERE}.{kind}_worker.Switching{kind.capitalize()}Worker",
        "scheduler_cls": f"{_HERE}.scheduler.OneTask{'' if is_cpu else 'Async'}Scheduler",
        "async_scheduling": not is_cpu,  # vLLM's CPU backend never schedules ahead
        "enable_lora": True,  # its routing; the worker makes no layers for it
        "max_loras": 1,
        "max_lora_rank": 8,
        "additional_config": options.as_config(),
        **({"quantization": NAME} if is_cpu else {}),
    }
