"""Giving back the bytes of removed tasks by writing the store anew."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from formats.canonical import dump
from formats.container import Container
from formats.errors import located
from formats.index import MAX_ROOT_NBYTES, RootIndex, StoredFile, TaskEntry
from formats.lock import open_locked
from formats.newfile import NewFile
from formats.sections import SectionRef

if TYPE_CHECKING:
    from formats.append import Appender


def compact(path: str | os.PathLike[str], *, timeout_s: float = 10.0) -> int:
    """Rewrites a store without what no generation needs any more.

    The new file is complete before it replaces the old one, whose readers go on undisturbed. It
    counts as one more generation. Everything copied is verified first, so damage is reported and
    not carried along.

    Args:
        path: Of the store.
        timeout_s: Seconds to wait for another writer.

    Returns:
        Bytes saved.

    Raises:
        StoreLockedError: Another writer holds the store.
        FormatError: The store is damaged; it is left as it is.
    """
    name = os.path.realpath(path)
    lock = open_locked(name, timeout_s=timeout_s)
    try:
        with Container.open(name) as store, located(path=path):
            status = os.fstat(lock)
            new = NewFile(name, timeout_s=timeout_s, mode=status.st_mode)
            try:
                root = _copy(store, new.appender)
                document = new.appender.section(dump(root.to_json(), max_nbytes=MAX_ROOT_NBYTES))
                pointer = new.appender.write_trailer(document, store.generation + 1)
                new.appender.write_slot(pointer)
                new.publish(pointer)
            except BaseException:
                new.discard()
                raise
            finally:
                os.close(new.fd)
        return status.st_size - pointer.committed_nbytes
    finally:
        os.close(lock)


def _copy(store: Container, appender: Appender) -> RootIndex:
    """Copies all that the store refers to; the index of the copies."""
    root = store.root
    base = _copy_section(store, appender, root.base, "base record")
    base_data = root.base_data
    if base_data is not None:
        for stream, ref in store.base_reader().directory.sections():
            _verify(store, base_data, stream, ref)
        base_data = _copy_extent(store, appender, base_data)
    used = {ref.hash for ref in store.base.files.values()}
    tasks = {}
    for name, entry in root.tasks.items():
        directory = store.directory(name)
        for stream, ref in directory.sections():
            _verify(store, entry, f"task {name!r} {stream}", ref)
        used.update(ref.hash for ref in directory.files.values())
        tasks[name] = _copy_extent(store, appender, entry)
    kept = {key: stored for key, stored in root.files.items() if key in used}
    against = {stored.dictionary for stored in kept.values()}
    kept |= {key: stored for key, stored in root.files.items() if key in against}
    files = {
        key: StoredFile(
            _copy_section(store, appender, stored.section, f"file {key}"), stored.dictionary
        )
        for key, stored in kept.items()
    }
    return replace(root, base=base, base_data=base_data, tasks=tasks, files=files)


def _verify(store: Container, entry: TaskEntry, where: str, ref: SectionRef) -> None:
    absolute = replace(ref, offset=ref.offset + entry.first_offset)
    absolute.verify(store.section(absolute), where)


def _copy_extent(store: Container, appender: Appender, entry: TaskEntry) -> TaskEntry:
    extent = SectionRef(entry.first_offset, entry.nbytes, "")
    first_offset = appender.copy(store.section(extent))
    moved = first_offset - entry.first_offset
    directory = replace(entry.directory, offset=entry.directory.offset + moved)
    return TaskEntry(directory, first_offset, entry.nbytes)


def _copy_section(store: Container, appender: Appender, ref: SectionRef, where: str) -> SectionRef:
    stored = store.section(ref)
    ref.verify(stored, where)
    return replace(ref, offset=appender.copy(stored))
