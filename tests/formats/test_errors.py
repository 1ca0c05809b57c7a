from __future__ import annotations

import pickle

import pytest

from formats import errors
from formats.errors import ChecksumMismatchError, FormatError, NpsError, TaskNotFoundError, located


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
