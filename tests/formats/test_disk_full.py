"""A full disk at every stage: a clear error, the old store byte for byte, no litter."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from formats import ContainerWriter, compact
from tests.formats.stores import add_task, build, names, set_base, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def files_end_at(nbytes: int) -> Iterator[None]:
    """No file may grow beyond that; what is written past it fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def add(path: Path) -> None:
    with ContainerWriter.open(path) as writer:
        add_task(writer, "new", 9)
        writer.commit()


def shrink(path: Path) -> None:
    compact(path)


def replace_whole(path: Path) -> None:
    with ContainerWriter.create(path, overwrite=True) as writer:
        set_base(writer, "embedded")
        add_task(writer, "new", 9)
        writer.commit()


def create(path: Path) -> None:
    build(path.with_name("new.nps"), "one")


def _final_nbytes(tmp_path: Path, operation: Callable[[Path], None]) -> int:
    folder = tmp_path / "rehearsal"
    folder.mkdir()
    path = build(folder / "a.nps", "one", "two")
    operation(path)
    return (folder / names(folder)[-1]).stat().st_size


@pytest.mark.parametrize("operation", [add, shrink, replace_whole, create])
def test_no_room_at_any_length(tmp_path: Path, operation: Callable[[Path], None]) -> None:
    last = _final_nbytes(tmp_path, operation)
    folder = tmp_path / "store"
    folder.mkdir()
    path = build(folder / "a.nps", "one", "two")
    before = path.read_bytes()
    first = len(before) if operation is add else 0
    limits = [*range(first, last, 67), last - 1]
    for limit in limits:
        with pytest.raises(OSError, match="File too large") as caught, files_end_at(limit):
            operation(path)
        assert caught.value.errno == errno.EFBIG
        assert str(caught.value.filename).endswith("a.nps" if operation is not create else "w.nps")
        assert path.read_bytes() == before
        assert names(folder) == ["a.nps"]
    with files_end_at(last):
        operation(path)
    print(f"{len(limits)} limits below {last} bytes of {operation.__name__}")  # noqa: T201


CALLS = ("pwrite", "fsync", "ftruncate", "fchmod", "replace", "open")


@pytest.mark.parametrize("operation", [add, shrink, replace_whole])
def test_every_call_to_the_system_may_fail(
    tmp_path: Path, operation: Callable[[Path], None]
) -> None:
    old, new = (build(tmp_path / name / "a.nps", "one", "two") for name in _folders(tmp_path))
    operation(new)
    before, contents = old.read_bytes(), (snapshot(old), snapshot(new))
    failed = 0
    while _fails_at(failed, operation, old):
        assert snapshot(old) in contents
        assert names(old.parent) == ["a.nps"]
        old.write_bytes(before)
        failed += 1
    assert snapshot(old) == contents[1]
    assert failed > 15
    print(f"{failed} calls of {operation.__name__} failed, one at a time")  # noqa: T201


def _folders(tmp_path: Path) -> list[str]:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    return ["old", "new"]


def _fails_at(number: int, operation: Callable[[Path], None], path: Path) -> bool:
    """Runs with the call of that number failing; false when there were fewer calls."""
    n_calls = 0

    def call(real: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls - 1 == number:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            real = getattr(os, name)
            patch.setattr(os, name, lambda *a, _real=real, **k: call(_real, *a, **k))
        try:
            operation(path)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return True
    return False
