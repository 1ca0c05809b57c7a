"""What vLLM calls in each of its processes (entry point `vllm.general_plugins`)."""

from __future__ import annotations

from server.engines.vllm.version import check_vllm
from server.errors import VllmVersionError


def register() -> None:
    """Make known what is asked for by name; once more does no harm.

    vLLM calls it wherever this package is installed, also for engines that ask for nothing of it:
    a version that it is not made for is left alone.
    """
    try:
        check_vllm()
    except VllmVersionError:
        return  # said when an engine of this package is started
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        from server.engines.vllm import cpu_weights

        cpu_weights.register()
