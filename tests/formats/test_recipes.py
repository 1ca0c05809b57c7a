from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from formats import Container, ContainerWriter, compact
from formats.errors import InvalidRecordError, MalformedIndexError, TaskNotFoundError
from tests.formats.stores import build, forge

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = {"fusion": [["one", 0.4], ["two", 0.6]]}


def recipes(path: Path) -> dict[str, object]:
    with Container.open(path) as store:
        return dict(store.root.recipes)


def test_set_replaced_kept_by_compaction_and_removed(tmp_path: Path) -> None:
    path = build(tmp_path / "a.nps", "one", "two")
    with ContainerWriter.open(path) as writer:
        writer.set_recipe("both", 1)
        writer.set_recipe("both", RECIPE)
        assert writer.recipes == {"both": RECIPE}
        assert writer.commit() == 3
    assert recipes(path) == {"both": RECIPE}
    compact(path)
    with ContainerWriter.open(path) as writer:
        assert writer.recipes == {"both": RECIPE}
        writer.remove_task("one")
        writer.commit()
        writer.remove_recipe("both")
        with pytest.raises(TaskNotFoundError, match="no such recipe"):
            writer.remove_recipe("both")
    assert recipes(path) == {"both": RECIPE}
    with ContainerWriter.open(path) as writer:
        writer.remove_recipe("both")
        writer.commit()
    assert recipes(path) == {}


def test_what_is_no_json_or_no_name_is_refused(tmp_path: Path) -> None:
    with ContainerWriter.open(build(tmp_path / "a.nps")) as writer:
        with pytest.raises(InvalidRecordError):
            writer.set_recipe("x", float("nan"))
        with pytest.raises(MalformedIndexError):
            writer.set_recipe("", 1)
        assert writer.recipes == {}


def test_a_recipe_without_a_name_is_refused(tmp_path: Path) -> None:
    path = build(tmp_path / "a.nps", "one")
    forged = forge(path, tmp_path / "b.nps", root=lambda root: root.update(recipes={"": 1}))
    with pytest.raises(MalformedIndexError, match="recipe"):
        Container.open(forged)
