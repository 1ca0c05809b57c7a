"""A store of the zoo, made by the command line itself, and a way to run commands in process."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from nps_store.cli import run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.nps_store.models import Zoo


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        parsed = json.loads(self.out)
        assert self.out.count("\n") == 1
        assert isinstance(parsed["schema"], str)
        return parsed

    @property
    def sentence(self) -> str:
        """The one line on stderr that says what is wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("nps: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


class Nps:
    """Runs commands in process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Result:
        self._capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Result(code, *self._capsys.readouterr())


@pytest.fixture
def nps(capsys: pytest.CaptureFixture[str]) -> Nps:
    return Nps(capsys)


@pytest.fixture(scope="session")
def stored(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two tasks; not to be changed."""
    path = tmp_path_factory.mktemp("cli") / "tasks.nps"
    tasks = [f"--task={name}={zoo.dense(name)}" for name in ("two", "three")]
    assert run(["compress", f"--base={zoo.base}", *tasks, f"--out={path}", "--keep=0.1"]) == 0
    return path


@pytest.fixture
def store(stored: Path, tmp_path: Path) -> Path:
    """A store of the test's own."""
    return shutil.copy(stored, tmp_path / "tasks.nps")


def snapshot(directory: Path) -> dict[str, bytes | None]:
    """Everything below a directory."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }
