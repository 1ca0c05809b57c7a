"""Query and document pairs that nothing here was trained on: Python's own docstrings.

The query is a docstring's summary line, the document the rest of it. Every Python installation has
them, no fine-tune of the zoo has seen anything like them, and the package descriptions themselves
are one line each: halves of them say too little of each other to be found again.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STDLIB: Final = Path(sysconfig.get_path("stdlib"))
OTHERS: Final = frozenset({"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"})
"""Folders of the library's that are not the library itself."""
SHORTEST_QUERY: Final = 4
SHORTEST_DOCUMENT: Final = 8
"""In words."""


@dataclass(frozen=True)
class Pair:
    """A text and the one that belongs to it.

    Attributes:
        query: Summary line of a docstring.
        document: What follows it.
    """

    query: str
    document: str


def pairs(split: Literal["calibration", "test"], *, limit: int, root: Path = STDLIB) -> list[Pair]:
    """Pairs of the modules of one split, in an order that depends on their texts only.

    Args:
        split: Half of the modules each, by a hash of their names.
        limit: Pairs, at most.
        root: Folder of the modules.

    Raises:
        FileNotFoundError: The folder has no docstring of two parts.
    """
    wanted = {"calibration": 0, "test": 1}[split]
    found: dict[str, Pair] = {}
    documents: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root)
        if OTHERS.isdisjoint(place.parts) and _digest(place.parts[0])[0] % 2 == wanted:
            for pair in _in_module(path):
                if pair.query not in found and pair.document not in documents:
                    found[pair.query] = pair
                    documents.add(pair.document)
    if not found:
        raise FileNotFoundError(f"{root}: expected Python modules with docstrings, got none")
    return sorted(found.values(), key=lambda pair: _digest(pair.query))[:limit]


def pairs_hash(chosen: Sequence[Pair]) -> str:
    """Which texts a result was measured on (sha256)."""
    text = "\0".join(part for pair in chosen for part in (pair.query, pair.document))
    return hashlib.sha256(text.encode()).hexdigest()


def _in_module(path: Path) -> Iterator[Pair]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes in somebody else's strings
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds):
            summary, _, rest = (ast.get_docstring(node) or "").partition("\n\n")
            query, document = summary.split(), rest.split()
            if len(query) >= SHORTEST_QUERY and len(document) >= SHORTEST_DOCUMENT:
                yield Pair(" ".join(query), " ".join(document))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
