"""Importing the package costs nothing and needs none of the heavy packages."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nps_store

HEAVY = ("torch", "transformers", "scipy", "cma", "fastapi", "numpy")


def test_importing_loads_nothing_heavy() -> None:
    code = f"import sys, nps_store; print([name for name in {HEAVY} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize("name", nps_store.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(nps_store, name).__name__ == name


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = nps_store.nonsense
