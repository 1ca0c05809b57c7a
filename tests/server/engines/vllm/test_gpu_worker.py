"""The worker on a GPU, as far as it can be told without one."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("vllm")

SCRIPT = """
import torch
known = torch.cuda.Event, torch.cuda.Stream, torch.cuda.current_stream, torch.Tensor.pin_memory
from server.engines.vllm.gpu_worker import SwitchingGpuWorker
assert known == (
    torch.cuda.Event, torch.cuda.Stream, torch.cuda.current_stream, torch.Tensor.pin_memory
)
"""


def test_streams_and_events_stay_what_they_are():
    """vLLM's worker on the CPU replaces them by what does nothing, wherever it is imported."""
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
