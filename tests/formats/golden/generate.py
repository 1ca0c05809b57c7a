"""Writes the golden stores of the current format version."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from formats import ContainerWriter, compact
from formats.layout import MAJOR, MINOR
from tests.formats.neutral import expected_content
from tests.formats.stores import build

FOLDER = Path(__file__).parent / f"v{MAJOR}.{MINOR}"


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
        content = expected_content({"one": 0, "three": 2}, storage=storage)
        text = json.dumps(content, indent=1, sort_keys=True)
        path.with_suffix(".json").write_text(text + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
