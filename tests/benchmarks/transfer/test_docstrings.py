"""Pairs come from docstrings of two parts, each module in one split, nothing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.transfer.docstrings import Pair, pairs, pairs_hash

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = '''"""Summary of the module {0}.

The rest of it is long enough to be a document, {0}.
"""
class A:
    """Too short.

    So short that whatever follows it does not count, {0}."""
    def f(self):
        """Method {0} with
        two lines.

        Its text has more than eight words in all, {0}.

        And another paragraph."""
        return "\\d"
    async def g(self):
        """Only a summary of {0} and nothing else at all in it."""
'''


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for name in "abcdefgh":
        (tmp_path / f"{name}.py").write_text(TEMPLATE.format(name))
    (tmp_path / "broken.py").write_text("def (:")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "x.py").write_text(TEMPLATE.format("x"))
    (tmp_path / "copy.py").write_text(TEMPLATE.format("a"))
    return tmp_path


def test_every_module_is_in_one_split(library: Path) -> None:
    splits = [pairs(split, limit=99, root=library) for split in ("calibration", "test")]
    assert all(splits)
    texts = [{pair.query for pair in found} for found in splits]
    both = [pair for found in splits for pair in found]
    assert len({pair.query for pair in both}) == 16
    modules = [{query.split()[1] for query in found if query[0] == "M"} for found in texts]
    assert modules[0] | modules[1] == set("abcdefgh")
    expected = "Its text has more than eight words in all, c. And another paragraph."
    assert Pair("Method c with two lines.", expected) in both
    assert not any("Too" in pair.query or "Only" in pair.query for pair in both)


def test_within_a_split_nothing_comes_twice_and_the_order_is_fixed(library: Path) -> None:
    for split in ("calibration", "test"):
        found = pairs(split, limit=99, root=library)
        assert len({pair.query for pair in found}) == len(found)
        assert pairs(split, limit=3, root=library) == found[:3]
        assert pairs_hash(found) == pairs_hash(pairs(split, limit=99, root=library))
        assert pairs_hash(found) != pairs_hash(found[::-1])


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="docstrings, got none"):
        pairs("test", limit=1, root=tmp_path)
