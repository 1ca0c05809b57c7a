"""A result file that is written row by row, so that a stopped run goes on where it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.machine import circumstances, measured_on, write_result

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class ResultFile:
    """Rows of one benchmark, measured with the same settings.

    Attributes:
        about: What stands beside the rows; written with the next one.
    """

    def __init__(
        self, out: Path, schema: str, command: str, device: str, settings: Mapping[str, Any]
    ) -> None:
        """Read what is there.

        Args:
            out: The file.
            schema: Its kind.
            command: What measures it.
            device: Where that runs.
            settings: What rows must have in common.

        Raises:
            ValueError: The file is of another kind, or measured with other settings.
        """
        self._out = out
        self._head = {"schema": schema, "command": command, "settings": dict(settings)}
        self._device = device
        old = json.loads(out.read_text()) if out.is_file() else {**self._head, "rows": []}
        for key in ("schema", "settings"):
            if old[key] != self._head[key]:
                raise ValueError(
                    f"{out}: its {key} are {old[key]}: expected {self._head[key]}; "
                    "name another file with --out"
                )
        self._rows: list[dict[str, Any]] = old["rows"]
        beside = {*self._head, "rows", *circumstances()}
        self.about = {key: value for key, value in old.items() if key not in beside}

    def has(self, **key: str) -> bool:
        """Whether there is a row with these values."""
        return any(_is(row, key) for row in self._rows)

    def put(self, row: dict[str, Any], **key: str) -> None:
        """Add a row in place of the one with these values, and write the file.

        A row notes commit and device, since others may be measured elsewhere; the file's head has
        those of all.
        """
        here = circumstances(self._device)
        row = {**row, "commit": here["commit"], "device": measured_on(here)}
        self._rows = [*(old for old in self._rows if not _is(old, key)), row]
        for name in ("commit", "device"):
            here[name] = ", ".join(sorted({old[name] for old in self._rows}))
        write_result(self._out, {**here, **self.content()})

    def content(self) -> dict[str, Any]:
        """Everything but the circumstances."""
        return {**self._head, **self.about, "rows": self._rows}


def lines(result: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Names and figures of merges, best first, between the individual models and the base."""
    rows = sorted(result["rows"], key=lambda row: -row["accuracy"])
    ends = ("individual models", result["individual"]), ("base", result["base"])
    return [ends[0], *((row["method"], row) for row in rows), ends[1]]


def _is(row: Mapping[str, Any], key: Mapping[str, str]) -> bool:
    return all(row[name] == value for name, value in key.items())
