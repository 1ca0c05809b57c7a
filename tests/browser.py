"""A page in a real headless Chromium: what it logs, what it holds, what it looks like."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: chromium)")
DARK = "--blink-settings=preferredColorScheme=0"


@dataclass(frozen=True)
class Shown:
    """How a page was shown.

    Attributes:
        dom: The document, after loading.
        console: Lines that the page wrote to the console, errors of loading among them.
        picture: Of the window (PNG).
    """

    dom: str
    console: list[str]
    picture: Path


def show(page: Path, folder: Path, *options: str, size: tuple[int, int] = (1180, 2400)) -> Shown:
    """Load a page with no network and take its picture."""
    picture = folder / f"{page.stem}-{len(list(folder.iterdir()))}.png"
    common = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--window-size={size[0]},{size[1]}", *options,
    ]  # fmt: skip
    taken = _run([*common, f"--screenshot={picture}", page.as_uri()])
    dumped = _run([*common, "--dump-dom", page.as_uri()])
    console = [line for line in taken.stderr.splitlines() if ":CONSOLE" in line]
    return Shown(dumped.stdout, console, picture)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
