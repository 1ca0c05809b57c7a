from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest

from formats import Container, errors
from formats.errors import ChecksumMismatchError, FormatError, NpsError, TaskNotFoundError, located
from tests.formats.stores import build, forge

if TYPE_CHECKING:
    from pathlib import Path


def _classes(root: type[NpsError]) -> list[type[NpsError]]:
    found = [root]
    for sub in root.__subclasses__():
        found += _classes(sub)
    return [cls for cls in found if cls.__module__ == errors.__name__]


def test_ids_and_exit_codes_are_unique_and_in_range() -> None:
    classes = _classes(NpsError)
    assert len({cls.id for cls in classes}) == len(classes)
    assert len({cls.exit_code for cls in classes}) == len(classes)
    assert all(10 <= cls.exit_code <= 29 for cls in _classes(FormatError))
    assert all("id" in vars(cls) and "exit_code" in vars(cls) and cls.__doc__ for cls in classes)


def test_every_class_but_the_root_is_also_a_builtin_error() -> None:
    for cls in _classes(NpsError)[1:]:
        assert issubclass(cls, (ValueError, LookupError, OSError, RuntimeError)), cls


def test_message_is_composed_from_its_parts() -> None:
    error = ChecksumMismatchError(
        "stored bytes are damaged",
        path="a.nps",
        where="task 'x' gaps at 64",
        expected="1f",
        actual="2f",
        hint="restore the file",
    )
    assert str(error) == (
        "a.nps: stored bytes are damaged (task 'x' gaps at 64): expected 1f, got 2f; "
        "restore the file"
    )


def test_key_error_does_not_quote_its_message() -> None:
    assert str(TaskNotFoundError("no such task", actual="'x'")) == "no such task: got 'x'"


def test_located_adds_path_and_place_once() -> None:
    with (
        pytest.raises(FormatError) as caught,
        located(path="outer", where="task 'x'"),
        located(path="inner", where="gaps"),
    ):
        raise FormatError("bad")
    assert str(caught.value) == "inner: bad (task 'x', gaps)"


def test_errors_survive_pickling() -> None:
    error = FormatError("bad", path="p", expected=1, actual=2)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(again), again.expected) == (str(error), 1)


PLACES = {
    "chunk": (
        lambda tensor: tensor["record"]["chunks"][0].__setitem__(2, -1),
        "task 'one', tensor 1, record, chunk length",
    ),
    "kind": (
        lambda tensor: tensor["record"].update(kind=1),
        "task 'one', tensor 1, record, kind",
    ),
    "base": (lambda tensor: tensor.update(base=True), "task 'one', tensor 1, base"),
    "shape": (lambda tensor: tensor.update(shape=[0.5]), "task 'one', tensor 1, shape"),
    "key": (lambda tensor: tensor.update(note=1), "task 'one', tensor 1, object"),
}


@pytest.mark.parametrize("rule", PLACES)
def test_an_error_names_its_place_in_a_directory(tmp_path: Path, rule: str) -> None:
    edit, where = PLACES[rule]
    forged = forge(
        build(tmp_path / "a.nps", "one"),
        tmp_path / "b.nps",
        directory=lambda document: edit(document["tensors"][1]),
    )
    with Container.open(forged) as store, pytest.raises(FormatError) as caught:
        store.directory("one")
    assert caught.value.where == f"directory of task 'one', {where}"
