"""Documents say what the code and the result files say, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import documents, minilm
from examples.demo import SHIPPED

README = documents.ROOT / "README.md"


@pytest.mark.parametrize("document", documents.DOCUMENTS)
def test_generated_parts_are_current(document: str) -> None:
    text = (documents.ROOT / document).read_text(encoding="utf-8")
    assert documents.render(document) == text, f"{document} differs: run `make docs`"


@pytest.mark.parametrize("document", documents.DOCUMENTS)
def test_an_edited_figure_is_noticed(document: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (documents.ROOT / document).read_text(encoding="utf-8")
    start = text.index("<!-- generated:")
    end = text.index("<!-- end -->", start)
    row = text.rindex("|", start, end)
    forged = text[:row] + "9" + text[row:]
    monkeypatch.setattr(Path, "read_text", _instead(documents.ROOT / document, forged))
    assert documents.render(document) == text


def test_paths_in_the_readme_exist() -> None:
    text = README.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (documents.ROOT / link).exists(), link


def test_make_targets_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (documents.ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", README.read_text(encoding="utf-8")))
    assert named, "the README names no make target"
    assert named <= targets


def test_verbs_in_the_readme_exist() -> None:
    from nps_store.cli import build

    app = build()
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}
    named = set(re.findall(r"^\s*(?:\$ )?nps ([a-z]+)", README.read_text(encoding="utf-8"), re.M))
    assert {"compress", "serve", "eval"} <= named <= verbs


def test_the_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    places = {"tasks.nps": str(SHIPPED), "all-MiniLM-L6-v2": str(minilm.base_dir())}
    for name, place in places.items():
        code = code.replace(f'"{name}"', repr(place))
    exec(code, {})  # noqa: S102 (our own README)
    assert "shared-lib" in capsys.readouterr().out


def _instead(path: Path, text: str):
    real = Path.read_text

    def read(self: Path, *args: object, **kwargs: object) -> str:
        return text if self == path else real(self, *args, **kwargs)

    return read
