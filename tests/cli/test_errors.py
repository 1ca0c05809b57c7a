"""One table of what can go wrong, for people who write scripts."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import nps_store.errors  # the classes are found by walking the tree
import server.errors  # noqa: F401
from formats.errors import NpsError

ROOT = Path(__file__).parents[2]
PACKAGES = {"formats", "nps_store", "server"}
USAGE, PROBLEMS, INTERRUPTED = 2, 3, 130


def classes(root: type[NpsError] = NpsError) -> list[type[NpsError]]:
    """Every class below the root that the product defines."""
    found = []
    for cls in root.__subclasses__():
        found += [cls, *classes(cls)]
    return [
        cls for cls in found if cls.__module__.split(".")[0] in {"formats", "nps_store", "server"}
    ]


def test_ids_and_exit_codes_are_unique():
    every = classes()
    assert len(every) > 40
    for key in ("id", "exit_code"):
        values = [getattr(cls, key) for cls in every]
        assert len(set(values)) == len(values), key


@pytest.mark.parametrize("cls", classes())
def test_every_class_has_its_own_id_code_and_words(cls):
    assert {"id", "exit_code", "__doc__"} <= vars(cls).keys()
    assert cls.exit_code not in {0, 1, PROBLEMS, INTERRUPTED}
    assert 0 < cls.exit_code < 126  # above that the shell has its own meanings
    assert (cls.exit_code == USAGE) == (cls.id == "usage.option")
    assert issubclass(cls, (ValueError, LookupError, OSError, RuntimeError, ArithmeticError))


@pytest.mark.parametrize("cls", [c for c in classes() if c.__module__.startswith("nps_store.")])
def test_an_error_goes_from_process_to_process(cls):
    error = cls("what", path="where", expected=1, actual=2, hint="do")
    error.add_note("noted")
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own bytes)
    assert (type(copied), str(copied), copied.__notes__) == (cls, str(error), ["noted"])


def test_documentation_names_every_exit_code():
    places = [ROOT / "docs" / "errors.md", ROOT / "README.md"]
    texts = [place.read_text() for place in places if place.is_file()]
    tables = [text for text in texts if "format.bad_magic" in text]
    if not tables:
        pytest.skip("there is no table of errors yet")
    missing = [
        cls.id
        for cls in classes()
        if not any(
            f"`{cls.id}`" in line and f"{cls.exit_code}" in line
            for table in tables
            for line in table.splitlines()
        )
    ]
    assert missing == []


def test_all_lists_every_class_of_the_module():
    own = {cls.__name__ for cls in classes() if cls.__module__ == "nps_store.errors"}
    assert own <= set(nps_store.errors.__all__)
