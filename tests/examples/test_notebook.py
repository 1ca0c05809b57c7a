"""The example notebook runs from top to bottom, and shows what it should."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest

from benchmarks.machine import ROOT

NOTEBOOK = json.loads((ROOT / "examples" / "store.ipynb").read_text(encoding="utf-8"))


def show(value: Any) -> str:
    """As a notebook would: HTML where there is some."""
    return value._repr_html_() if hasattr(value, "_repr_html_") else repr(value)


def run(source: str, names: dict[str, Any]) -> str:
    """One cell; what its last line is, if it is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)  # noqa: S102 (our own notebook)
    if last is None:
        return ""
    return show(eval(compile(ast.Expression(last.value), "cell", "eval"), names))  # noqa: S307


def test_the_file_is_a_notebook_without_outputs():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in NOTEBOOK["cells"]:
        assert cell["cell_type"] in {"code", "markdown"}
        assert not cell.get("outputs")


@pytest.mark.slow
def test_all_cells_run():
    names: dict[str, Any] = {}
    sources = ["".join(c["source"]) for c in NOTEBOOK["cells"] if c["cell_type"] == "code"]
    shown = [run(source, names) for source in sources]
    store, task, answers, time, verified, closed = shown
    assert "8 tasks of all-MiniLM-L6-v2" in store
    assert store.count("<tr>") == 9
    assert "shared-lib" in task
    assert "'role': 'shared-lib'" in answers
    assert float(time.strip("'").removesuffix(" ms")) > 0
    assert (verified, closed) == ("True", "None")
