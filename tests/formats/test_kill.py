from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_store_survives_the_killing_of_its_writers(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.formats.kill",
        str(tmp_path / "a.nps"),
        "--kills",
        "300",
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)
    print(counts)  # noqa: T201
    assert counts["killed"] >= 300
    for operation in ("add", "rm", "compact"):
        assert counts[f"killed during {operation}"] > 30
    assert counts["left bytes of an unfinished change"]
    assert counts["killed after the change was visible"]
    assert {path.name for path in tmp_path.iterdir()} <= {"a.nps", "a.nps.part"}
