"""What is fuzzed: everything between stored bytes and records, with checksums that always fit.

An input is either the data area of a store (found through its trailer) or, with separators in it,
base record, task directory and extent of a task, the first two as plain JSON text. Whatever it
holds, reading raises an error of ours or gives records that keep their promises.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from formats import Container, TaskReader, layout, roots
from formats.base import BaseRecord
from formats.canonical import load
from formats.codecs import compiled, zstd
from formats.directory import TaskDirectory
from formats.errors import NpsError
from formats.index import MAX_DIRECTORY_NBYTES
from formats.records import check_record
from formats.sections import SectionRef, aligned
from formats.sources import BytesSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from formats.directory import TensorEntry
    from formats.records import Record

SEPARATOR = b"\0NPS\0"
MAX_NUMEL = 1 << 17
MAX_NBYTES = 1 << 20
HEAD = layout.pack_superblock().ljust(layout.DATA_OFFSET, b"\0")


class _Fits(bytes):
    """A checksum that equals every other."""

    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


@contextmanager
def without_checksums() -> Iterator[None]:
    """Lets every checksum fit, so that damage gets past them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SectionRef, "verify", lambda *_: None)
        patch.setattr(layout, "digest", lambda *_: _Fits(16))
        patch.setattr(roots, "digest", lambda *_: _Fits(16))
        patch.setattr(roots, "RETRY_PAUSE_S", 0)
        yield


def execute(data: bytes) -> str:
    """Reads an input to its end; the id of the error, or "sound"."""
    try:
        if SEPARATOR in data:
            _read_parts(*data.split(SEPARATOR, 2))
        else:
            _read_store(data)
    except NpsError as error:
        str(error)
        return error.id
    return "sound"


def _read_parts(base_text: bytes, directory_text: bytes, extent: bytes = b"") -> None:
    base = BaseRecord.from_json(_load(base_text))
    document: Any = _load(directory_text)
    name = document["name"] if isinstance(document, dict) and "name" in document else ""
    directory = TaskDirectory.from_json(document, name=name, base=base.tensors)
    end = max((ref.end for _, ref in directory.sections()), default=0)
    directory.check_extent(aligned(end))
    if end > MAX_NBYTES:
        return
    TaskDirectory.from_json(directory.to_json(base.tensors), name=name, base=base.tensors)
    # A container hands out extents of the length that their sections need.
    whole = memoryview(extent.ljust(end, b"\0")[:end])
    _read_task(TaskReader(directory, base=base.tensors, extent=whole, path="fuzz"))


def _load(text: bytes) -> Any:
    return load(zstd.compress(text or b" ", level=1), max_nbytes=MAX_DIRECTORY_NBYTES)


def _read_store(data: bytes) -> None:
    with Container.open_source(BytesSource(HEAD + data)) as store, ExitStack() as failures:
        readers = [lambda name=name: store.task_reader(name) for name in store.root.tasks]
        if store.root.base_data is not None:
            readers.append(store.base_reader)
        for make in readers:
            failures.callback(_read_task, make())
        for ref in store.base.files.values():
            store.file(ref, base_file=lambda _: b"")


def _read_task(reader: TaskReader) -> None:
    for entry in reader:
        if int(np.prod([float(size) for size in entry.shape])) <= MAX_NUMEL:
            for read in (reader.record, reader.extra):
                _same_compiled(read, entry)


def _same_compiled(read: Any, entry: TensorEntry) -> None:
    """Decodes with numpy and, where it is installed, with the compiled loops."""
    outcomes: list[Record | str | None] = []
    for least in (1 << 62, 0) if compiled.is_available() else (1 << 62,):
        compiled.MIN_ENTRIES = least
        try:
            outcomes.append(read(entry))
        except NpsError as error:
            outcomes.append(error.id)
    reference, fast = outcomes[0], outcomes[-1]
    if isinstance(reference, str) or reference is None:
        if reference != fast:
            raise AssertionError(f"{reference} or {fast}")
        return
    check_record(reference)
    positions = getattr(reference, "positions", None)
    if positions is not None and not np.array_equal(positions, fast.positions):
        raise AssertionError("compiled loops decode to other positions")
