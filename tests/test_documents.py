"""Documents say what the code and the result files say, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import documents, minilm
from examples.demo import SHIPPED

README = documents.ROOT / "README.md"
_MARKED = re.compile(r"(<!-- (?:generated: \w+ -->\n|figure: \w+ -->))(.*?)(<!-- end -->)", re.S)


@pytest.mark.parametrize("document", documents.DOCUMENTS)
def test_generated_parts_are_current(document: str) -> None:
    text = (documents.ROOT / document).read_text(encoding="utf-8")
    assert documents.render(document) == text, f"{document} differs: run `make docs`"


@pytest.mark.parametrize("document", documents.DOCUMENTS)
def test_deleted_figures_come_back(document: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (documents.ROOT / document).read_text(encoding="utf-8")
    emptied = _MARKED.sub(lambda match: match[1] + match[3], text)
    monkeypatch.setattr(Path, "read_text", _instead(documents.ROOT / document, emptied))
    assert documents.render(document) == text


@pytest.mark.parametrize("document", documents.DOCUMENTS)
def test_an_edited_figure_is_noticed(document: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every digit of every generated part, changed: each part is restored as a whole."""
    text = (documents.ROOT / document).read_text(encoding="utf-8")
    forged = _MARKED.sub(lambda match: match[1] + _next_digits(match[2]) + match[3], text)
    has_digits = any(re.search(r"\d", match[2]) for match in _MARKED.finditer(text))
    assert (forged != text) == has_digits
    monkeypatch.setattr(Path, "read_text", _instead(documents.ROOT / document, forged))
    assert documents.render(document) == text


def test_the_readme_states_no_figure_by_hand() -> None:
    """What has a unit, or is a fraction, is generated; code and names of versions are not prose."""
    prose = _MARKED.sub("", README.read_text(encoding="utf-8"))
    prose = re.sub(r"```.*?```|^    .*$|`[^`]*`|\[[^]]*\]\([^)]*\)", "", prose, flags=re.S | re.M)
    units = r"\d[\d.,]* ?(?:%|[kMGT]?B\b|M\b|[mµ]?s\b|x\b|bits?\b|times\b)|\b0\.\d+"
    assert re.findall(units, prose) == []


def test_all_parts_and_figures_are_used() -> None:
    used = "".join(
        (documents.ROOT / name).read_text(encoding="utf-8") for name in documents.DOCUMENTS
    )
    named = set(re.findall(r"<!-- (?:generated|figure): (\w+) -->", used))
    assert named == documents.PARTS.keys() | documents.FIGURES.keys()


def test_paths_in_the_readme_exist() -> None:
    text = README.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (documents.ROOT / link).exists(), link


def test_make_targets_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (documents.ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", README.read_text(encoding="utf-8")))
    assert named, "the README names no make target"
    assert named <= targets


def test_verbs_in_the_documents_exist() -> None:
    from nps_store.cli import build

    app = build()
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}
    verbs |= {group.name for group in app.registered_groups}
    for name in documents.DOCUMENTS:
        text = (documents.ROOT / name).read_text(encoding="utf-8")
        named = set(re.findall(r"^\s*(?:\$ )?nps ([a-z]+)", text, re.M))
        assert named <= verbs, name
        assert name != "README.md" or {"compress", "serve", "eval"} <= named


def test_the_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    places = {"tasks.nps": str(SHIPPED), "all-MiniLM-L6-v2": str(minilm.base_dir())}
    for name, place in places.items():
        code = code.replace(f'"{name}"', repr(place))
    exec(code, {})  # noqa: S102 (our own README)
    assert "shared-lib" in capsys.readouterr().out


def _next_digits(text: str) -> str:
    return re.sub(r"\d", lambda match: str((int(match[0]) + 1) % 10), text)


def _instead(path: Path, text: str):
    real = Path.read_text

    def read(self: Path, *args: object, **kwargs: object) -> str:
        return text if self == path else real(self, *args, **kwargs)

    return read
