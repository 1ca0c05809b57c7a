"""Writes the golden stores of the current format version."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from formats import ContainerWriter, compact
from formats.layout import MAJOR, MINOR
from tests.formats.neutral import (
    expected_content,
    expected_factors,
    expected_outlying,
    expected_ranked,
)
from tests.formats.stores import build, build_factors, build_outlying, build_ranked

FOLDER = Path(__file__).parent / f"v{MAJOR}.{MINOR}"
MANIFEST = "manifest.json"


def main() -> int:
    """Writes the folder; returns the exit status."""
    if FOLDER.exists():
        sys.stderr.write(f"{FOLDER}: exists; a released golden folder is never rewritten\n")
        return 1
    FOLDER.mkdir()
    for storage in ("external", "embedded"):
        path = build(FOLDER / f"{storage}.nps", "one", "two", "three", storage=storage)
        with ContainerWriter.open(path) as writer:
            writer.remove_task("two")
            writer.commit()
        if storage == "embedded":
            compact(path)
        _write_content(path, expected_content({"one": 0, "three": 2}, storage=storage))
    _write_content(build_ranked(FOLDER / "ranked.nps"), expected_ranked())
    _write_content(build_outlying(FOLDER / "outlying.nps"), expected_outlying())
    _write_content(build_factors(FOLDER / "factors.nps"), expected_factors())
    write_manifest()
    return 0


def _write_content(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, sort_keys=True)
    path.with_suffix(".json").write_text(text + "\n", "utf-8")


def write_manifest() -> None:
    """Notes length and SHA-256 of every file of the folder, so that none changes unnoticed."""
    files = sorted(path for path in FOLDER.iterdir() if path.name != MANIFEST)
    manifest = {path.name: describe(path) for path in files}
    (FOLDER / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")


def describe(path: Path) -> list[int | str]:
    """Length in bytes and SHA-256 of a file."""
    data = path.read_bytes()
    return [len(data), hashlib.sha256(data).hexdigest()]


if __name__ == "__main__":
    raise SystemExit(main())
