"""What vLLM calls in each of its processes (entry point `vllm.general_plugins`)."""

from __future__ import annotations


def register() -> None:
    """Make known what is asked for by name; once more does no harm, and so does an engine that asks
    for nothing of it."""
    from server.engines.vllm.version import check_vllm

    check_vllm()
    from server.engines.vllm import cpu_weights

    cpu_weights.register()
