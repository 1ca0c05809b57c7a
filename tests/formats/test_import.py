from __future__ import annotations

import subprocess
import sys

PROBE = """
import sys
before = set(sys.modules)
import formats
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
"""


def test_package_pulls_in_nothing_heavy() -> None:
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert {"formats", "numpy", "zstandard", "xxhash"} <= loaded
    assert loaded.isdisjoint({"torch", "safetensors", "transformers", "pydantic", "nps_store"})
